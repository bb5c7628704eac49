/* SIGSEGV and SIGBUS: says whose access hit closed memory, then dies. Kernel accesses are checked before they are
 * made, so what comes here is host code that touches device memory, or a defect of the emulator itself. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "emu.h"

static struct sigaction before[2];
static unsigned char handler_stack[65536];

static void write_text(const char *text) {
    const ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
    const uint64_t address = (uint64_t)(uintptr_t)info->si_addr;
    char where[256], text[512];
    (void)context;
    if (emu_find_alloc(address) != NULL) { // not async-signal-safe, but the process is lost anyway
        emu_describe_address(address, 1, where, sizeof where);
        const char *who = emu_running_kernel();
        if (who != NULL)
            snprintf(text, sizeof text, "emu: fault inside kernel %s: %s\n", who, where);
        else
            snprintf(text, sizeof text, "emu: host code touched device memory: %s\n", where);
        write_text(text);
        if (emu_options()->exitcode != 0) _exit(emu_options()->exitcode);
    }
    sigaction(signal_number, &before[signal_number == SIGBUS], NULL); // as if we were not here
}

void emu_install_fault_handler(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    sigaltstack(&stack, NULL); // of this thread: device work can use another small stack
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
}
