# Tiny models of every family against transformers (tools/make_logit_golden.py): each folder of logits/ with each
# instruction set, as GGUF too, and on 2 and 3 tensor-parallel ranks (without the leak check: Open MPI itself leaks).
target_link_libraries(test_logits PRIVATE nt_model)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(no_gguf llama3_v5 qwen2) # gelu, and a window on some layers only: that container has no keys for them
file(GLOB cases CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/logits/*/golden.bin)
foreach(golden ${cases})
  get_filename_component(folder ${golden} DIRECTORY)
  get_filename_component(case ${folder} NAME)
  set(gguf ${CMAKE_CURRENT_BINARY_DIR}/${case}.gguf)
  set(gguf_args)
  if(NOT case IN_LIST no_gguf)
    set(gguf_args --gguf ${gguf})
    add_test(NAME golden/logits/${case}/to_gguf
             COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/hf_to_gguf.py ${folder} ${gguf})
    set_tests_properties(golden/logits/${case}/to_gguf PROPERTIES LABELS golden FIXTURES_SETUP gguf_${case})
  endif()
  foreach(isa portable avx2 avx512)
    add_test(NAME golden/logits/${case}/${isa} COMMAND test_logits ${folder} --isa ${isa} ${gguf_args})
    set_tests_properties(golden/logits/${case}/${isa} PROPERTIES LABELS golden SKIP_RETURN_CODE 77
                         FIXTURES_REQUIRED gguf_${case})
  endforeach()
  foreach(tp 2 3)
    add_test(NAME golden/logits/${case}/tp${tp}
             COMMAND mpirun --allow-run-as-root --oversubscribe --bind-to none -np ${tp} $<TARGET_FILE:test_logits>
                     ${folder})
    set_tests_properties(golden/logits/${case}/tp${tp} PROPERTIES LABELS golden PROCESSORS 2 TIMEOUT 120
                         ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  endforeach()
endforeach()

# The same on the emulated GPU: every family on one rank; the int8 cache, and sums over NCCL's stand-in, on one each.
function(nt_golden_cuda name)
  add_test(NAME golden/logits/${name} COMMAND ${ARGN})
  set_tests_properties(golden/logits/${name} PROPERTIES LABELS golden PROCESSORS 2 TIMEOUT 300 ENVIRONMENT
    "NOCTURNE_CUDA_DRIVER=$<TARGET_FILE:cuda_emu>;NOCTURNE_NCCL=$<TARGET_FILE:nccl_emu>;NT_EMU=devices=2;ASAN_OPTIONS=detect_leaks=0")
endfunction()
if(TARGET cuda_emu)
  foreach(golden ${cases})
    get_filename_component(folder ${golden} DIRECTORY)
    get_filename_component(case ${folder} NAME)
    nt_golden_cuda(${case}/cuda $<TARGET_FILE:test_logits> ${folder} --device cuda)
  endforeach()
  nt_golden_cuda(llama3/cuda_int8 $<TARGET_FILE:test_logits> ${CMAKE_CURRENT_SOURCE_DIR}/logits/llama3 --device cuda-int8)
  nt_golden_cuda(smollm2/cuda_tp2 mpirun --allow-run-as-root --oversubscribe --bind-to none -np 2
                 $<TARGET_FILE:test_logits> ${CMAKE_CURRENT_SOURCE_DIR}/logits/smollm2 --device cuda)
endif()

# Model copies that share their weights, and one digest whatever the world.
set(smollm2 ${CMAKE_CURRENT_SOURCE_DIR}/logits/smollm2)
add_test(NAME golden/logits/worlds
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/worlds.sh $<TARGET_FILE:test_logits> ${smollm2})
set_tests_properties(golden/logits/worlds PROPERTIES LABELS golden PROCESSORS 2 TIMEOUT 120
                         ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
