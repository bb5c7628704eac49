#!/bin/bash
# The house checks must find what they are for: each is run on a small tree with one fault, and must name it.
here=$(cd "$(dirname "$0")/../.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cc=${CC:-cc}
failed=0
n_cases=0

# A tree that all checks accept: enough files for the checks to believe in it.
fresh_tree() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/src/{core,io,comm,text,corpus,model,infer,train,cmd} "$tree"/{kernels,tests,tools}
    cp "$here"/tools/*.{sh,py} "$tree/tools/"
    cp "$here/.clang-format" "$tree/"
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        printf '/* One.\n *\n * Two.\n * Three.\n */\n#ifndef NT_C%d_H\n#define NT_C%d_H\nint nt_c%d(void);\n#endif\n' \
            $i $i $i >"$tree/src/core/c$i.h"
        printf '#include "c%d.h"\n\nint nt_c%d(void) { return %d; }\n' $i $i $i >"$tree/src/core/c$i.c"
    done
}

expect() { # status "what it says" command...
    local want=$1 says=$2 out rc
    shift 2
    n_cases=$((n_cases + 1))
    out=$("$@" 2>&1)
    rc=$?
    if [ $rc != "$want" ] || [[ $out != *"$says"* ]]; then
        echo "case $n_cases: $*: exit $rc (expected $want), expected to read \"$says\" in:" >&2
        echo "$out" | head -5 >&2
        failed=1
    fi
}

fault() { # file text
    fresh_tree
    printf '%b' "$2" >"$tree/$1"
}

symbols_of() { # C text, object name, library name: the check on a library made of it
    fresh_tree
    printf '%b' "$1" >"$tree/$2.c"
    "$cc" -std=gnu17 -D_GNU_SOURCE -O1 -w -c "$tree/$2.c" -o "$tree/$2.c.o" && ar rcs "$tree/lib$3.a" "$tree/$2.c.o"
    library=$tree/lib$3.a
}

fresh_tree
expect 0 "headers" "$tree/tools/check_headers.sh"
expect 0 "layers" "$tree/tools/check_layers.sh"
expect 0 "src/core" python3 "$tree/tools/check_size.py"
expect 0 "" python3 "$tree/tools/check_source.py"

fault src/io/bad.h '/* One.\n *\n * Two.\n * Three.\n */\nstatic inline uint32_t nt_f(void) { return 1; }\n'
expect 1 "src/io/bad.h: does not compile alone" "$tree/tools/check_headers.sh"
fault src/io/bad.h '/* One.\n *\n * Two.\n * Three.\n */\nenum { NT_NO_GUARD };\n'
expect 1 "src/io/bad.h: does not compile alone" "$tree/tools/check_headers.sh"
fault src/io/bad.h '/* Short. */\nint nt_f(void);\n'
expect 1 "src/io/bad.h: opens with a comment of 1 lines" "$tree/tools/check_headers.sh"
fault src/io/bad.h 'int nt_f(void);\n'
expect 1 "src/io/bad.h: opens with a comment of 0 lines" "$tree/tools/check_headers.sh"

fault src/model/m.h 'int nt_m(void);\n'
printf '#include "m.h"\n' >"$tree/src/io/bad.c"
expect 1 "src/io/bad.c:1: src/io may not include src/model/m.h" "$tree/tools/check_layers.sh"
fault src/io/bad.c '\n#include "c1.h"\n#include "nowhere.h"\n'
expect 1 "src/io/bad.c:3: includes \"nowhere.h\", which is no header of a layer" "$tree/tools/check_layers.sh"
fault src/io/bad.c '#include "core/c1.h"\n'
expect 1 "include headers by their bare name" "$tree/tools/check_layers.sh"
fault src/model/bad.c '#include <mpi.h>\n'
expect 1 "src/model/bad.c:1: includes <mpi.h>, which belongs to src/comm/comm_mpi.c" "$tree/tools/check_layers.sh"
fault src/io/bad.c '#include <jansson.h>\n'
expect 1 "belongs to src/core/json.c alone" "$tree/tools/check_layers.sh"
fault src/io/a.c '#include <hdf5.h>\n'
expect 0 "layers" "$tree/tools/check_layers.sh"
printf '#include <hdf5_hl.h>\n' >"$tree/src/io/b.c"
expect 1 "hdf5.h is included by more than one file: src/io/a.c src/io/b.c" "$tree/tools/check_layers.sh"

expect 0 "selftest ok" python3 "$here/tools/check_size.py" --selftest
expect 0 "selftest ok" python3 "$here/tools/check_source.py" --selftest
fault src/io/bad.c "int nt_f(void) {\n$(printf '    nt_c1();\\n%.0s' {1..99})    return 0;\n}\n"
expect 1 "src/io/bad.c:1: nt_f has 102 lines, at most 100" python3 "$tree/tools/check_size.py"
fault src/io/c1.c 'int nt_f(void);\n'
expect 1 "the name exists already" python3 "$tree/tools/check_size.py"
fault src/io/bad.c 'int nt_f(const char *s) { return atoi(s); }\n'
expect 1 "src/io/bad.c:1: atoi( takes nonsense for 0" python3 "$tree/tools/check_source.py"
fault src/io/bad.c "int nt_f(void); // TO""DO more\n"
expect 1 "unfinished work" python3 "$tree/tools/check_source.py"
fault tools/bad.sh "#!/bin/sh\n# FIX""ME later\n"
expect 1 "tools/bad.sh:2" python3 "$tree/tools/check_source.py"

symbols_of 'int nt_f(void) { return 1; }\nstatic const char *const names[] = {"a", "b"};\nconst char *nt_g(int i) { return names[i]; }\n' good nt_io
expect 0 "1 libraries, 1 objects" "$tree/tools/check_symbols.sh" "$library"
symbols_of 'int helper(void) { return 1; }\n' bad nt_io
expect 1 "exports helper" "$tree/tools/check_symbols.sh" "$library"
symbols_of 'int nt_f(void) { static int n; return ++n; }\n' bad nt_io
expect 1 "bad.c.o keeps writable state: n in .bss" "$tree/tools/check_symbols.sh" "$library"
symbols_of 'int nt_n = 5;\n' bad nt_io
expect 1 "keeps writable state: nt_n in .data" "$tree/tools/check_symbols.sh" "$library"
symbols_of 'static _Thread_local int n;\nint nt_f(void) { return ++n; }\n' bad nt_io
expect 1 "keeps writable state: n in .tbss" "$tree/tools/check_symbols.sh" "$library"
symbols_of 'static const char *names[] = {"a", "b"};\nvoid nt_g(int i) { names[i] = names[0]; }\n' bad nt_io
expect 1 "keeps writable state: names in .data" "$tree/tools/check_symbols.sh" "$library"
symbols_of '#include <stdlib.h>\nvoid nt_f(void) { exit(1); }\n' bad nt_cmd
expect 1 "bad.c.o calls exit" "$tree/tools/check_symbols.sh" "$library"
symbols_of '#include <stdio.h>\nvoid nt_f(int n) { printf("%%d", n); }\n' bad nt_io
expect 1 "bad.c.o uses printf; below cmd/ nobody prints" "$tree/tools/check_symbols.sh" "$library"
symbols_of '#include <stdio.h>\nvoid nt_f(int n) { printf("%%d", n); }\n' bad nt_cmd
expect 0 "" "$tree/tools/check_symbols.sh" "$library"
symbols_of '#include <stdio.h>\nvoid nt_f(char *p, int n) { sprintf(p, "%%d", n); }\n' bad nt_io
expect 1 "bad.c.o calls sprintf, which is banned" "$tree/tools/check_symbols.sh" "$library"
symbols_of '#include <stdlib.h>\nconst char *nt_f(void) { return getenv("HOME"); }\n' bad nt_io
expect 1 "bad.c.o calls getenv" "$tree/tools/check_symbols.sh" "$library"

if "$here/tools/check_format.sh" 2>&1 | grep -q ^skipped; then
    echo "check_format: skipped, no clang-format 14"
else
    fault src/io/bad.c 'int  nt_f( void ){return 1;}\n'
    expect 1 "src/io/bad.c: not formatted" "$tree/tools/check_format.sh"
    expect 0 "" "$tree/tools/check_format.sh" --fix
    expect 0 "files" "$tree/tools/check_format.sh"
    # a table that takes clang-format three passes
    fault src/io/bad.c 'static const struct t x[] = {\n{a ? b : c, "wwwwwwwww wwwww w wwwwwwwww ww wwwwwwww ww wwwwwwwww wwww ww w ww wwww wwww wwwwwww wwwwww"}, /* comment of some length here */\n{a ? b : c, "w ww wwwww"}, /* comment of some length here */\n};\n'
    expect 0 "" "$tree/tools/check_format.sh" --fix
    expect 0 "files" "$tree/tools/check_format.sh"
fi
echo "$n_cases cases"
exit $failed
