# SmolLM2-135M-Instruct against transformers; skipped where the model has not been fetched (an error in CI).
target_link_libraries(test_real PRIVATE nt_model)
add_test(NAME golden/real/tp1 COMMAND test_real)
foreach(tp 2 3)
  add_test(NAME golden/real/tp${tp}
           COMMAND mpirun --allow-run-as-root --oversubscribe --bind-to none -np ${tp} $<TARGET_FILE:test_real>)
endforeach()
set_tests_properties(golden/real/tp1 golden/real/tp2 golden/real/tp3 PROPERTIES LABELS golden SKIP_RETURN_CODE 77
                     PROCESSORS 2 TIMEOUT 600 ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
