# The CUDA backend: found or left out, with one line that says which.
#
# NT_CUDA = AUTO (when nvcc and cuda.h are there), ON (required), OFF. No CUDA library is linked: the driver, cuBLASLt and
# NCCL are opened at run time. Each kernels/<name>.cu becomes
#   <build>/cuda/<name>.fatbin      machine code for sm_80 and sm_90a (*_sm90.cu: sm_90a alone)
#   <build>/cuda/<name>.ptx         for other devices and for the emulator: compute_80 (*_sm90.cu: compute_90a)
#   <build>/cuda/sm90/<name>.ptx    with NT_TESTS: compute_90a, what an emulated device of compute capability 9.0 runs
#   <build>/cuda/<name>.ptxas.txt   registers, spills and shared memory of every kernel, as ptxas -v says
# and is embedded in the library nt_cuda_images. Target nt_cuda_ptx builds the files alone. NT_CUDA_FROM takes them from
# another build of this tree, whatever its build type: nvcc takes minutes, and its output is the same.
set(NT_CUDA AUTO CACHE STRING "CUDA backend: AUTO, ON or OFF")
set_property(CACHE NT_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NT_CUDA STREQUAL "OFF")
  message(STATUS "nocturne: NT_CUDA is OFF: CPU backend only")
else()
  find_program(NT_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NT_NVCC)
    get_filename_component(nvcc_real ${NT_NVCC} REALPATH)
    get_filename_component(nvcc_home ${nvcc_real}/../.. ABSOLUTE)
    find_file(NT_CUDA_STUB libcuda.so HINTS ${nvcc_home}/lib64/stubs ${nvcc_home}/lib/stubs # for a test
              ${nvcc_home}/targets/x86_64-linux/lib/stubs NO_DEFAULT_PATH)
    find_path(NT_CUDA_INCLUDE cuda.h HINTS ${nvcc_home}/include ${nvcc_home}/targets/x86_64-linux/include)
  endif()
  if(NT_NVCC AND NT_CUDA_INCLUDE)
    set(NT_HAVE_CUDA ON)
    execute_process(COMMAND ${NT_NVCC} --version OUTPUT_VARIABLE nvcc_version OUTPUT_STRIP_TRAILING_WHITESPACE)
    string(REGEX MATCH "release ([0-9.]+)" _ "${nvcc_version}")
    set(nvcc_release ${CMAKE_MATCH_1})
    message(STATUS "nocturne: CUDA backend on (nvcc ${nvcc_release}, sm_80 sm_90a + PTX)")
    if(nvcc_release VERSION_LESS 12.0)
      message(FATAL_ERROR "nvcc ${nvcc_release} at ${NT_NVCC} is too old: 12.0 is needed; -DNT_CUDA=OFF builds without")
    endif()
  elseif(NT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "NT_CUDA is ON, but nvcc or cuda.h is missing: set CUDA_HOME or -DNT_NVCC=/path/to/nvcc")
  elseif(NT_NVCC)
    message(STATUS "nocturne: nvcc found at ${NT_NVCC} but no cuda.h: CPU backend only")
  else()
    message(STATUS "nocturne: no nvcc: CPU backend only")
  endif()
endif()

set(NT_NVCC_FLAGS -std=c++17 -O3 -lineinfo --Werror=all-warnings -I${CMAKE_SOURCE_DIR}/kernels -I${CMAKE_SOURCE_DIR}/src/core)
set(NT_CUDA_FROM "" CACHE PATH "folder cuda of another build of this tree, whose compiled kernels are taken as they are")
if(NT_CUDA_FROM)
  set(NT_CUDA_DIR ${NT_CUDA_FROM})
else()
  set(NT_CUDA_DIR ${CMAKE_BINARY_DIR}/cuda)
endif()

# <ptx> of a .cu for a virtual architecture.
function(nt_cuda_ptx source virtual ptx)
  if(NT_CUDA_FROM)
    return()
  endif()
  get_filename_component(name ${ptx} NAME)
  add_custom_command(
    OUTPUT ${ptx}
    COMMAND ${NT_NVCC} ${NT_NVCC_FLAGS} -arch=${virtual} -ptx -MD -MF ${ptx}.d -MT ${ptx} -o ${ptx} ${source}
    DEPENDS ${source} DEPFILE ${ptx}.d COMMENT "nvcc ${name}: ${virtual}" VERBATIM)
endfunction()

# Compiles one .cu; appends the files to NT_CUDA_FILES and the name to NT_CUDA_IMAGES of the caller.
function(nt_cuda_image source)
  get_filename_component(name ${source} NAME_WE)
  set(base ${NT_CUDA_DIR}/${name})
  if(name MATCHES "_sm90$")
    set(code -gencode arch=compute_90a,code=sm_90a)
    set(virtual compute_90a)
  else()
    set(code -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a)
    set(virtual compute_80)
  endif()
  # ptxas -v writes to stderr: kept as a file, and shown when the compiler fails.
  string(JOIN " " flags ${NT_NVCC_FLAGS})
  string(JOIN " " gencode ${code})
  if(NOT NT_CUDA_FROM)
    add_custom_command(
      OUTPUT ${base}.fatbin
      BYPRODUCTS ${base}.ptxas.txt
      COMMAND sh -c "${NT_NVCC} ${flags} ${gencode} -fatbin -Xptxas -v -MD -MF ${base}.fatbin.d -MT ${base}.fatbin \
-o ${base}.fatbin ${source} 2>${base}.ptxas.txt || { cat ${base}.ptxas.txt >&2; exit 1; }"
      DEPENDS ${source} DEPFILE ${base}.fatbin.d COMMENT "nvcc ${name}.cu: fatbin" VERBATIM)
  endif()
  nt_cuda_ptx(${source} ${virtual} ${base}.ptx)
  set(files ${base}.fatbin ${base}.ptx)
  if(NT_TESTS AND NOT name MATCHES "_sm90$")
    nt_cuda_ptx(${source} compute_90a ${NT_CUDA_DIR}/sm90/${name}.ptx)
    list(APPEND files ${NT_CUDA_DIR}/sm90/${name}.ptx)
  endif()
  set(NT_CUDA_FILES ${NT_CUDA_FILES} ${files} PARENT_SCOPE)
  set(NT_CUDA_IMAGES ${NT_CUDA_IMAGES} ${name} PARENT_SCOPE)
endfunction()

if(NT_HAVE_CUDA)
  file(MAKE_DIRECTORY ${NT_CUDA_DIR} ${NT_CUDA_DIR}/sm90)
  file(GLOB cu_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*.cu)
  foreach(cu ${cu_files})
    nt_cuda_image(${cu})
  endforeach()

  # The images as symbols of one object, and a table of them by name (kernels/cuda_images.h).
  set(text "/* Generated by cmake/cuda.cmake. */\n#include \"cuda_images.h\"\n#include <stddef.h>\n")
  set(rows "")
  function(nt_cuda_bytes symbol file)
    string(APPEND text "__asm__(\".section .rodata\\n.balign 64\\n${symbol}:\\n.incbin \\\"${file}\\\"\\n${symbol}_end:\\n"
           ".byte 0\\n.previous\\n\");\nextern const unsigned char ${symbol}[], ${symbol}_end[];\n")
    set(text "${text}" PARENT_SCOPE)
  endfunction()
  foreach(name ${NT_CUDA_IMAGES})
    set(symbol nt_cuda_${name})
    nt_cuda_bytes(${symbol}_fatbin ${NT_CUDA_DIR}/${name}.fatbin)
    nt_cuda_bytes(${symbol}_ptx ${NT_CUDA_DIR}/${name}.ptx)
    set(ptx_sm90 NULL)
    if(${NT_CUDA_DIR}/sm90/${name}.ptx IN_LIST NT_CUDA_FILES)
      set(ptx_sm90 ${symbol}_sm90)
      nt_cuda_bytes(${ptx_sm90} ${NT_CUDA_DIR}/sm90/${name}.ptx)
    endif()
    string(APPEND rows "    {\"${name}\", ${symbol}_fatbin, ${symbol}_fatbin_end, ${symbol}_ptx, ${symbol}_ptx_end,"
           " ${ptx_sm90}},\n")
  endforeach()
  string(APPEND text "static const struct nt_cuda_image images[] = {\n${rows}")
  list(LENGTH NT_CUDA_IMAGES n_images)
  string(REGEX REPLACE "^([0-9]+)\\.([0-9]+).*" "1000 * \\1 + 10 * \\2" toolkit "${nvcc_release}")
  string(APPEND text "    {0},\n};\nconst struct nt_cuda_image *nt_cuda_images(int *count) {\n"
         "    *count = ${n_images};\n    return images;\n}\nconst int nt_cuda_toolkit = ${toolkit};\n")
  set(images_c ${CMAKE_BINARY_DIR}/cuda/cuda_images.c)
  file(GENERATE OUTPUT ${images_c} CONTENT "${text}")
  add_custom_target(nt_cuda_ptx DEPENDS ${NT_CUDA_FILES})
  add_library(nt_cuda_images STATIC ${images_c})
  set_source_files_properties(${images_c} PROPERTIES OBJECT_DEPENDS "${NT_CUDA_FILES}")
  target_include_directories(nt_cuda_images PRIVATE ${CMAKE_SOURCE_DIR}/kernels)
endif()
