# Training steps of every family against transformers and PEFT (train/make_train_golden.py): each case with each
# instruction set, on 2 and 3 tensor-parallel ranks (without the leak check: Open MPI itself leaks), and on the emulated
# GPU, where the first steps of most must do; gradients of all weights as compute capability 9.0, too.
target_link_libraries(test_train PRIVATE nt_train)
file(GLOB cases CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/train/*/case.json)
foreach(json ${cases})
  get_filename_component(folder ${json} DIRECTORY)
  get_filename_component(case ${folder} NAME)
  foreach(isa portable avx2 avx512)
    add_test(NAME golden/train/${case}/${isa} COMMAND test_train ${folder} --isa ${isa})
    set_tests_properties(golden/train/${case}/${isa} PROPERTIES LABELS golden SKIP_RETURN_CODE 77 PROCESSORS 2
                         TIMEOUT 300)
  endforeach()
  foreach(tp 2 3)
    add_test(NAME golden/train/${case}/tp${tp}
             COMMAND mpirun --allow-run-as-root --oversubscribe --bind-to none -np ${tp} $<TARGET_FILE:test_train>
                     ${folder})
    set_tests_properties(golden/train/${case}/tp${tp} PROPERTIES LABELS golden PROCESSORS 2 TIMEOUT 300
                         ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  endforeach()
  if(TARGET cuda_emu)
    if(case MATCHES "^(smollm2|full_qwen3)$")
      set(steps 20)
    else()
      set(steps 2)
    endif()
    add_test(NAME golden/train/${case}/cuda COMMAND test_train ${folder} --isa cuda --steps ${steps})
    set_tests_properties(golden/train/${case}/cuda PROPERTIES LABELS golden TIMEOUT 300
                         ENVIRONMENT "NOCTURNE_CUDA_DRIVER=$<TARGET_FILE:cuda_emu>;NT_EMU=devices=1,leaks=1,stream0=0")
    if(case STREQUAL "full_qwen3")
      add_test(NAME golden/train/${case}/cuda_sm90 COMMAND test_train ${folder} --isa cuda --steps 2)
      set_tests_properties(golden/train/${case}/cuda_sm90 PROPERTIES LABELS golden TIMEOUT 300 ENVIRONMENT
                           "NOCTURNE_CUDA_DRIVER=$<TARGET_FILE:cuda_emu>;NT_EMU=cc=90,devices=1,leaks=1,stream0=0")
    endif()
  endif()
endforeach()
