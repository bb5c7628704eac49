/* The kernel images embedded in the program, one per kernels/<name>.cu, as cmake/cuda.cmake builds them.
 *
 * Each is machine code for the architectures known at build time (a fatbin) and PTX text that the driver compiles for
 * any other; in a build with tests also the PTX of sm_90a, for emulated devices of compute capability 9.0. The bytes
 * and the table are read-only parts of the executable; PTX ends with a null byte, as the driver wants it. No errors,
 * any thread. Source of the generated definition: <build>/cuda/cuda_images.c. */
#ifndef NT_CUDA_IMAGES_H
#define NT_CUDA_IMAGES_H

struct nt_cuda_image {
    const char *name;
    const unsigned char *fatbin, *fatbin_end;
    const unsigned char *ptx, *ptx_end; /* *ptx_end is 0 */
    const unsigned char *ptx_sm90;      /* NULL: none */
};

const struct nt_cuda_image *nt_cuda_images(int *count);
/* CUDA version of the nvcc that made them, 1000 * major + 10 * minor. Drivers of an older major version take neither
 * its machine code nor, if older at all, its PTX (CUDA compatibility guide). */
extern const int nt_cuda_toolkit;

#endif
