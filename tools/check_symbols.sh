#!/bin/bash
# House check on the static libraries given as arguments: what they export, what they keep, and what they call.
#   exported symbols begin with nt_;
#   no writable file-level state (.data, .bss, thread locals) outside the list below;
#   exit, abort and MPI_Abort only in listed objects; no printing below cmd/; no banned functions; getenv only in env.c;
#   threads are started only by the pool and the watchdog.
# Prints object and symbol, exits 1 on a finding. Sanitizers add symbols of their own: run it on a plain build.

# object symbol -- why
allowed_state="
log.c.o sink
status.c.o error_record
status.c.o bug_hook
stop.c.o stop_signal
"
# object symbol; a * stands for any object of the library cmd
allowed_calls="
env.c.o getenv
comm_mpi.c.o MPI_Abort
comm_mpi.c.o _exit
pool.c.o pthread_create
watchdog.c.o pthread_create
"
ending='exit _exit _Exit quick_exit abort raise __assert_fail MPI_Abort'
printing='printf vprintf puts putchar perror fprintf vfprintf fputs fputc putc fwrite_stdout stdout stderr __printf_chk __fprintf_chk __vfprintf_chk'
banned='strcpy __strcpy_chk strcat __strcat_chk sprintf __sprintf_chk vsprintf __vsprintf_chk strtok atoi atol atoll atof
    rand srand random srandom drand48 lrand48 gets getenv secure_getenv setlocale localtime gmtime asctime ctime strerror_l
    system popen tmpnam mktemp pthread_create thrd_create'

failed=0
complain() {
    echo "$1" >&2
    failed=1
}
listed() { # list object symbol
    grep -qxF "$2 $3" <<<"$1"
}

[ $# -gt 0 ] || { echo "usage: $0 libnt_core.a ..." >&2; exit 2; }
n_objects=0
for library in "$@"; do
    name=$(basename "$library" .a)
    n_objects=$((n_objects + $(ar t "$library" | wc -l)))

    while read -r symbol; do
        [[ $symbol == nt_* ]] || complain "$name: exports $symbol; make it static or begin it with nt_"
    done < <(nm -g --defined-only "$library" 2>/dev/null | awk 'NF == 3 {print $3}' | sort -u)

    # objdump -t: address, flags (O: object), section, size, name
    while read -r object symbol section; do
        listed "$allowed_state" "$object" "$symbol" && continue
        complain "$name: $object keeps writable state: $symbol in $section; put it into a context struct, or make it const"
    done < <(objdump -t "$library" 2>/dev/null | awk '
        /file format/ {sub(/:$/, "", $1); object = $1; next}
        {
            section = ""
            for (i = 2; i <= NF; i++) if ($i ~ /^\./ || $i == "*COM*") {section = $i; break}
            if (section ~ /^\.(data|bss|tdata|tbss)/ && section !~ /^\.data\.rel\.ro/ || section == "*COM*")
                if ($NF != section) {
                    symbol = $NF
                    sub(/\.[0-9]+$/, "", symbol) # statics inside functions get a number
                    print object, symbol, section
                }
        }')

    while IFS=: read -r _ object rest; do
        symbol=${rest##* }
        listed "$allowed_calls" "$object" "$symbol" && continue
        for word in $ending; do
            [ "$symbol" = "$word" ] && complain "$name: $object calls $symbol; return a status or call nt_bug: only main ends the process"
        done
        for word in $banned; do
            [ "$symbol" = "$word" ] && complain "$name: $object calls $symbol, which is banned (see tools/check_source.py for what to use)"
        done
        [ "$name" = libnt_cmd ] && continue
        for word in $printing; do
            [ "$symbol" = "$word" ] && complain "$name: $object uses $symbol; below cmd/ nobody prints: use log.h"
        done
    done < <(nm -A -u "$library" 2>/dev/null)
done
echo "$# libraries, $n_objects objects"
exit $failed
