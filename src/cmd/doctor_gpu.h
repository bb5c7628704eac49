/* nocturne doctor --gpu: everything there is to know about one GPU in less than ten minutes.
 *
 * Facts, every kernel against the CPU, ceilings, kernels in the shapes of two models, whole steps; the report goes to
 * stdout and, with doctor.report, to a directory, after each part anew. Needs no network and no file. One rank.
 * Ownership: opens and closes its own backend. Threading: the main thread. Errors: NT_E_UNSUPPORTED without a usable
 * driver; NT_E_INTERNAL when a kernel is wrong, after the report; those of the driver, which end the report early. */
#ifndef NT_DOCTOR_GPU_H
#define NT_DOCTOR_GPU_H

#include "cmd.h"

NT_MUST nt_status nt_doctor_gpu(struct nt_cmd_context *ctx);

#endif
