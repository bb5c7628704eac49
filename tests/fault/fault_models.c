/* The table of broken model files: each row is one file with one thing wrong, and the exact sentence and status that
 * nt_tensor_source_open or the reading of its tensors must answer with. In sentences @ stands for the path.
 *
 *     fault_models                        runs all rows
 *     fault_models --write DIR            writes the files to DIR/gguf and DIR/safetensors (seeds of the fuzz corpus)
 *     fault_models --program NOCTURNE     runs rows through `nocturne inspect`: sentence on stderr and exit code
 *
 * (--program leaves out rows whose fault is in the weights: inspect reads none.) */
#include "model_bytes.h"
#include "fileio.h"
#include "tensor_source.h"
#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN(a) (sizeof(a) / sizeof((a)[0]))
#define DATA   NT_E_DATA
#define UNSUP  NT_E_UNSUPPORTED

struct gguf_row {
    const char *name;
    struct gguf_plan plan;
    nt_status code;
    const char *says;
};

// clang-format off
static const struct gguf_row gguf_rows[] = {
    {"good", {0}, NT_OK, ""},
    {"empty", {.cut = SIZE_MAX}, DATA, "@: offset 0: neither a GGUF file (magic GGUF) nor a Hugging Face directory"},
    {"magic-only", {.keep = 4},
     DATA, "@: offset 0: GGUF header needs 24 bytes but the file ends after 4; it is truncated or damaged, fetch it "
           "again"},
    {"bad-magic", {.magic = "GGUX"},
     DATA, "@: offset 0: neither a GGUF file (magic GGUF) nor a Hugging Face directory"},
    {"version-1", {.version = 1},
     UNSUP, "@: offset 4: GGUF version 1; version 3 was expected, convert the model again"},
    {"version-future", {.version = 4},
     UNSUP, "@: offset 4: GGUF version 4; version 3 was expected, convert the model again"},
    {"big-endian", {.version = 0x03000000},
     UNSUP, "@: offset 4: big-endian GGUF; convert it with gguf-convert-endian FILE little"},
    {"n-tensors-cap", {.n_tensors = 65537}, DATA, "@: offset 8: tensor count is 65537; at most 65536 are allowed"},
    {"n-tensors-beyond-file", {.n_tensors = 60000},
     DATA, "@: offset 8: tensor count is 60000 but only 528 bytes are left in the file"},
    {"n-tensors-one-more", {.n_tensors = 3}, DATA, "@: offset 213: tensor name is empty"},
    {"n-kv-cap", {.n_kv = UINT64_MAX},
     DATA, "@: offset 16: metadata count is 18446744073709551615; at most 65536 are allowed"},
    {"n-kv-beyond-file", {.n_kv = 65536},
     DATA, "@: offset 16: metadata count is 65536 but only 520 bytes are left in the file"},
    {"n-kv-one-more", {.n_kv = 3}, DATA, "@: offset 146: tensor name of 562949953421312 bytes; at most 63 are allowed"},
    {"key-empty", {.kv = {KV("", 4, "\1\0\0\0")}}, DATA, "@: offset 131: metadata key is empty"},
    {"key-too-long", {.kv = {KV("k", 4, "\1\0\0\0"), .key_claims = 65536}},
     DATA, "@: offset 131: metadata key of 65536 bytes; at most 65535 are allowed"},
    {"key-length-wraps", {.kv = {KV("k", 4, "\1\0\0\0"), .key_claims = UINT64_MAX}},
     DATA, "@: offset 131: metadata key of 18446744073709551615 bytes; at most 65535 are allowed"},
    {"key-beyond-file", {.kv = {KV("k", 4, "\1\0\0\0"), .key_claims = 60000}},
     DATA, "@: offset 139: metadata key needs 60000 bytes but the file ends after 437; it is truncated or damaged, "
           "fetch it again"},
    {"key-control-byte", {.kv = {KV("a\nb", 4, "\1\0\0\0")}},
     DATA, "@: offset 140: metadata key holds byte 0x0a; printable ASCII was expected"},
    {"key-twice", {.kv = {KV("general.architecture", 4, "\1\0\0\0")}},
     DATA, "@: offset 139: second value for the key general.architecture"},
    {"type-unknown", {.kv = {KV("k", 13, "\1\0\0\0")}},
     DATA, "@: offset 140: unknown value type 13; 0 to 12 were expected"},
    {"bool-2", {.kv = {KV("k", 7, "\2")}}, DATA, "@: offset 144: bool of value 2; 0 or 1 was expected"},
    {"string-too-long", {.kv = {KV("k", 8, "\1\0\0\1\0\0\0\0")}},
     DATA, "@: offset 144: string of 16777217 bytes; at most 16777216 are allowed"},
    {"string-beyond-file", {.kv = {KV("k", 8, "\0\0\1\0\0\0\0\0")}},
     DATA, "@: offset 152: string needs 65536 bytes but the file ends after 424; it is truncated or damaged, fetch "
           "it again"},
    {"array-of-unknown", {.kv = {KV("k", 9, "\x0d\0\0\0\1\0\0\0\0\0\0\0")}},
     DATA, "@: offset 144: unknown value type 13; 0 to 12 were expected"},
    {"array-of-arrays", {.kv = {KV("k", 9, "\x09\0\0\0\1\0\0\0\0\0\0\0")}},
     DATA, "@: offset 144: array of arrays; only flat ones are allowed"},
    {"array-too-long", {.kv = {KV("k", 9, "\0\0\0\0\1\0\0\4\0\0\0\0")}},
     DATA, "@: offset 148: array of 67108865 items; at most 67108864 are allowed"},
    {"array-beyond-file", {.kv = {KV("k", 9, "\x0a\0\0\0\0\1\0\0\0\0\0\0")}},
     DATA, "@: offset 148: array of 256 u64 items but only 420 bytes are left in the file"},
    {"strings-beyond-file", {.kv = {KV("k", 9, "\x08\0\0\0\0\0\0\1\0\0\0\0")}},
     DATA, "@: offset 148: array of 16777216 string items but only 420 bytes are left in the file"},
    {"string-item-too-long", {.kv = {KV("k", 9, "\x08\0\0\0\1\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0")}},
     DATA, "@: offset 156: string of 33554432 bytes; at most 16777216 are allowed"},
    {"bool-item-2", {.kv = {KV("k", 9, "\7\0\0\0\2\0\0\0\0\0\0\0\1\2")}},
     DATA, "@: offset 157: bool of value 2; 0 or 1 was expected"},
    {"align-3", {.kv = {KV("general.alignment", 4, "\3\0\0\0")}},
     DATA, "@: general.alignment is 3; a power of two up to 1048576 was expected"},
    {"align-0", {.kv = {KV("general.alignment", 4, "\0\0\0\0")}},
     DATA, "@: general.alignment is 0; a power of two up to 1048576 was expected"},
    {"align-too-large", {.kv = {KV("general.alignment", 4, "\0\0\0\x80")}},
     DATA, "@: general.alignment is 2147483648; a power of two up to 1048576 was expected"},
    {"align-type", {.kv = {KV("general.alignment", 10, "\x20\0\0\0\0\0\0\0")}},
     DATA, "@: general.alignment has type u64; u32 was expected"},
    {"align-other", {.kv = {KV("general.alignment", 4, "\x80\0\0\0")}, .tensor = {TENSOR("t", 1, 0, 512, 128)}},
     DATA, "@: offset 271: tensor t at data offset 320; 384 was expected, the end of the one before"},
    {"split", {.kv = {KV("split.count", 2, "\2\0")}},
     UNSUP, "@ is one of 2 parts; join them first with llama-gguf-split --merge"},
    {"name-empty", {.tensor = {TENSOR("", 1, 0, 4, 1)}}, DATA, "@: offset 213: tensor name is empty"},
    {"name-too-long", {.tensor = {TENSOR("t", 1, 0, 4, 1), .name_claims = 64}},
     DATA, "@: offset 213: tensor name of 64 bytes; at most 63 are allowed"},
    {"name-control-byte", {.tensor = {TENSOR("t\x1b[2J", 1, 0, 4, 1)}},
     DATA, "@: offset 222: tensor name holds byte 0x1b; printable ASCII was expected"},
    {"name-twice", {.tensor = {TENSOR("a", 1, 0, 4, 1)}}, DATA, "@: offset 221: second tensor of the name a"},
    {"dims-0", {.tensor = {TENSOR("t", 0, 0, 4, 1)}},
     DATA, "@: offset 222: tensor with 0 dimensions; 1 to 4 were expected"},
    {"dims-5", {.tensor = {TENSOR("t", 5, 0, 4, 1, 1, 1, 1, 1)}},
     DATA, "@: offset 222: tensor with 5 dimensions; 1 to 4 were expected"},
    {"dims-huge", {.tensor = {TENSOR("t", UINT32_MAX, 0, 4, 1)}},
     DATA, "@: offset 222: tensor with 4294967295 dimensions; 1 to 4 were expected"},
    {"dim-zero", {.tensor = {TENSOR("t", 2, 0, 4, 1, 0)}},
     DATA, "@: offset 234: dimension of 0; 1 to 2^63-1 was expected"},
    {"dim-negative", {.tensor = {TENSOR("t", 2, 0, 4, 1, 1ull << 63)}},
     DATA, "@: offset 234: dimension of 9223372036854775808; 1 to 2^63-1 was expected"},
    {"shape-overflows", {.tensor = {TENSOR("t", 3, 0, 4, 1, 1ull << 32, 1ull << 32)}},
     DATA, "@: offset 213: size of the tensor overflows 64 bits"},
    {"shape-wraps-to-small", {.tensor = {TENSOR("t", 3, 0, 4, (1ull << 42) + 1, 1ull << 22, 4)}},
     DATA, "@: offset 213: size of the tensor overflows 64 bits"},
    {"bytes-overflow", {.tensor = {TENSOR("t", 2, 28, 4, 1ull << 31, 1ull << 31)}},
     DATA, "@: offset 213: size of the tensor overflows 64 bits"},
    {"blocks-cut", {.tensor = {TENSOR("t", 1, 8, 4, 33)}},
     DATA, "@: offset 213: rows of 33 elements are no whole number of Q8_0 blocks of 32"},
    {"type-removed", {.tensor = {TENSOR("t", 1, 4, 4, 32)}},
     DATA, "@: offset 234: tensor of unknown type 4; convert the model to a common type (Q8_0, BF16)"},
    {"tensor-type-unknown", {.tensor = {TENSOR("t", 1, 4000000000u, 4, 32)}},
     DATA, "@: offset 234: tensor of unknown type 4000000000; convert the model to a common type (Q8_0, BF16)"},
    {"offset-hole", {.tensor = {TENSOR("t", 1, 0, 64, 4), .shift = 32}},
     DATA, "@: offset 238: tensor t at data offset 352; 320 was expected, the end of the one before"},
    {"offset-overlap", {.tensor = {TENSOR("t", 1, 0, 64, 4), .shift = -32}},
     DATA, "@: offset 238: tensor t at data offset 288; 320 was expected, the end of the one before"},
    {"offset-unaligned", {.tensor = {TENSOR("t", 1, 0, 64, 4), .shift = 4}},
     DATA, "@: offset 238: tensor t at data offset 324; 320 was expected, the end of the one before"},
    {"offset-huge", {.tensor = {TENSOR("t", 1, 0, 64, 4), .shift = INT64_MAX - 400}},
     DATA, "@: offset 238: tensor t at data offset 9223372036854775727; 320 was expected, the end of the one before"},
    {"data-beyond-file", {.tensor = {TENSOR("t", 1, 0, 4, 1ull << 40)}},
     DATA, "@: offset 238: tensor t needs 4398046511104 bytes from offset 576 but the file ends after 32; fetch the "
           "file again"},
    {"data-cut", {.cut = 31},
     DATA, "@: offset 205: tensor b needs 34 bytes from offset 480 but the file ends after 33; fetch the file again"},
    {"header-cut", {.keep = 140},
     DATA, "@: offset 140: number of dimensions needs 4 bytes but the file ends after 0; it is truncated or "
           "damaged, fetch it again"},
    {"weight-nan", {.weight = __builtin_nanf("")},
     DATA, "@: tensor a: 1 of the 64 weights from row 0 on are not finite, the first is NaN at [1, 5]; the model is "
           "damaged, fetch it again"},
    {"weight-infinite", {.weight = -__builtin_inff()},
     DATA, "@: tensor a: 1 of the 64 weights from row 0 on are not finite, the first is infinite at [1, 5]; the "
           "model is damaged, fetch it again"},
    {"type-not-readable", {.tensor = {TENSOR("t", 1, 10, 84, 256)}},
     UNSUP, "@: tensor t is Q2_K [256]; weights of this type cannot be read, convert the model to BF16 or Q8_0"},
    {"matrix-3d", {.tensor = {TENSOR("t", 3, 0, 32, 2, 2, 2)}},
     UNSUP, "@: tensor t is F32 [2, 2, 2]; a vector or a matrix was expected"},
};
// clang-format on

struct safetensors_row {
    const char *name;
    struct safetensors_plan plan;
    nt_status code;
    const char *says;
};
#define ST(text, data) .header = (text), .n_data = (data)

// clang-format off
static const struct safetensors_row safetensors_rows[] = {
    {"good",
     {ST("{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,"
          "16]},\"e\":{\"dtype\":\"BF16\",\"shape\":[0,3],\"data_offsets\":[16,16]},\"b\":{\"dtype\":\"BF16\","
          "\"shape\":[3],\"data_offsets\":[16,22]}}  ", 22)},
     NT_OK, ""},
    {"empty", {.header = "x", .keep = SIZE_MAX},
     DATA, "@: offset 0: header length needs 8 bytes but the file has 0; fetch it again"},
    {"seven-bytes", {.header = "{}", .keep = 7},
     DATA, "@: offset 0: header length needs 8 bytes but the file has 7; fetch it again"},
    {"header-too-long", {.header = "{}", .claims = 100000001},
     DATA, "@: offset 0: header of 100000001 bytes; at most 100000000 are allowed"},
    {"header-wraps", {.header = "{}", .claims = UINT64_MAX},
     DATA, "@: offset 0: header of 18446744073709551615 bytes; at most 100000000 are allowed"},
    {"header-beyond-file", {.header = "{}", .claims = 3},
     DATA, "@: offset 8: header of 3 bytes but the file ends after 2; it is truncated, fetch it again"},
    {"header-leading-space", {.header = " {}"},
     DATA, "@: offset 8: header does not begin with '{'; a safetensors file was expected"},
    {"header-array", {.header = "[{}]"},
     DATA, "@: offset 8: header does not begin with '{'; a safetensors file was expected"},
    {"json-cut", {.header = "{\"w\":{\"dtype\":"},
     DATA, "@: header (from offset 8): not valid JSON at byte 14 (line 1): unexpected token near end of file"},
    {"json-bad-utf8", {.header = "{\"\xff\":{}}"},
     DATA, "@: header (from offset 8): not valid JSON at byte 2 (line 1): unable to decode byte 0xff near '\"'"},
    {"json-second-value", {.header = "{} {}"},
     DATA, "@: header (from offset 8): not valid JSON at byte 4 (line 1): end of file expected near '{'"},
    {"name-twice",
     {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"w\":{\"dtype\":\"U8\",\"shape\":[1],"
          "\"data_offsets\":[1,2]}}", 2)},
     DATA, "@: header (from offset 8): not valid JSON at byte 56 (line 1): duplicate object key near '\"w\"'"},
    {"name-control", {ST("{\"a\\u001b[2J\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: a tensor name of 5 bytes; 1 to 1024 without control characters were expected"},
    {"metadata-list", {.header = "{\"__metadata__\":[]}"},
     DATA, "@: __metadata__ is of type array; an object was expected"},
    {"metadata-number", {.header = "{\"__metadata__\":{\"n\":1}}"},
     DATA, "@: __metadata__ value of n is of type integer; a string was expected"},
    {"tensor-number", {.header = "{\"w\":1}"}, DATA, "@: tensor w: dtype missing; a string was expected"},
    {"dtype-missing", {ST("{\"w\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: dtype missing; a string was expected"},
    {"dtype-unknown", {ST("{\"w\":{\"dtype\":\"F12\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: unknown dtype F12; F32, F16 or BF16 was expected"},
    {"shape-missing", {ST("{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: shape must be an array of at most 8 sizes"},
    {"shape-negative", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: shape[0] must be an integer of at least 0"},
    {"shape-real", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: shape[0] must be an integer of at least 0"},
    {"shape-overflows", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0)},
     DATA, "@: tensor w: size of the shape overflows 64 bits"},
    {"bytes-overflow", {ST("{\"w\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0)},
     DATA, "@: tensor w: size of the shape overflows 64 bits"},
    {"dims-9", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1)},
     DATA, "@: tensor w: shape must be an array of at most 8 sizes"},
    {"offsets-missing", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1)},
     DATA, "@: tensor w: data_offsets must be two integers, begin and end"},
    {"offsets-three", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1)},
     DATA, "@: tensor w: data_offsets must be two integers, begin and end"},
    {"offsets-reversed", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1)},
     DATA, "@: tensor w: data_offsets must be two integers, begin and end"},
    {"offsets-beyond-int64",
     {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", 1)},
     DATA, "@: header (from offset 8): not valid JSON at byte 68 (line 1): too big integer near '9223372036854775808'"},
    {"span-not-shape", {ST("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4)},
     DATA, "@: tensor w: data_offsets span 4 bytes but dtype and shape need 8"},
    {"half-byte", {ST("{\"w\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2)},
     DATA, "@: tensor w: 3 elements of F4 do not end on a whole byte"},
    {"first-not-at-0", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2)},
     DATA, "@: tensor w: data begins at 1; 0 was expected (there is a hole)"},
    {"hole",
     {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"v\":{\"dtype\":\"U8\",\"shape\":[1],"
          "\"data_offsets\":[2,3]}}", 3)},
     DATA, "@: tensor v: data begins at 2; 1 was expected (there is a hole)"},
    {"overlap",
     {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"v\":{\"dtype\":\"U8\",\"shape\":[2],"
          "\"data_offsets\":[1,3]}}", 3)},
     DATA, "@: tensor v: data begins at 1; 2 was expected (it overlaps another)"},
    {"data-cut", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1)},
     DATA, "@: tensor w: data ends at offset 2 but the file has 1 bytes; it is truncated, fetch it again"},
    {"data-beyond-file",
     {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}", 1)},
     DATA, "@: tensor w: data ends at offset 9223372036854775807 but the file has 1 bytes; it is truncated, fetch "
           "it again"},
    {"bytes-left-over", {ST("{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3)},
     DATA, "@: offset 63: 1 bytes after the last tensor; the file was expected to end here"},
    {"weight-nan",
     {ST("{\"w\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}", 4), .data = "\0\0\xc0\xff"},
     DATA, "@: tensor w: 1 of the 2 weights from row 0 on are not finite, the first is NaN at [0, 1]; the model is "
           "damaged, fetch it again"},
    {"type-not-readable", {ST("{\"w\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8)},
     UNSUP, "@: tensor w is I64 [1]; weights of this type cannot be read, convert the model to BF16 or Q8_0"},
};
// clang-format on

/* Directories and files of other kinds: up to three files in a directory, or one file given itself. */
struct path_row {
    const char *name;
    const char *given; /* NULL: the directory */
    struct {
        const char *name, *text;
        size_t len; /* 0: strlen */
    } files[3];
    nt_status code;
    const char *says;
};
#define INDEX    "model.safetensors.index.json"
#define ONE_BYTE "\x35\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}x"

// clang-format off
static const struct path_row path_rows[] = {
    {"absent", "nothing-here", {{0}}, NT_E_NOINPUT, "@/nothing-here: cannot be opened: No such file or directory"},
    {"dir-empty", NULL, {{0}},
     NT_E_NOINPUT, "@ holds no weights; model.safetensors, model.safetensors.index.json or a .gguf file was expected"},
    {"dir-pickled", NULL, {{"pytorch_model.bin", "PK\3\4", 4}},
     UNSUP, "@ holds pickled weights (pytorch_model.bin), which can run code when read; convert them first: "
           "save_pretrained(DIR, safe_serialization=True)"},
    {"pickle-zip", "a.bin", {{"a.bin", "PK\3\4\0\0\0\0", 8}},
     UNSUP, "@/a.bin is a pickled checkpoint, which can run code when read; convert it first: save_pretrained(DIR, "
           "safe_serialization=True)"},
    {"pickle-2", "a.pt", {{"a.pt", "\x80\2}q\0.", 6}},
     UNSUP, "@/a.pt is a pickled checkpoint, which can run code when read; convert it first: save_pretrained(DIR, "
           "safe_serialization=True)"},
    {"file-text", "a.gguf", {{"a.gguf", "hello", 0}},
     DATA, "@/a.gguf: offset 0: neither a GGUF file (magic GGUF) nor a Hugging Face directory"},
    {"file-empty", "a.gguf", {{"a.gguf", "", 0}},
     DATA, "@/a.gguf: offset 0: neither a GGUF file (magic GGUF) nor a Hugging Face directory"},
    {"file-lfs-pointer", "a.gguf", {{"a.gguf", "version https://git-lfs.github.com/spec/v1\n", 0}},
     DATA, "@/a.gguf is a git-lfs pointer, not the weights; run git lfs pull"},
    {"file-safetensors", "model.safetensors", {{"model.safetensors", ONE_BYTE, sizeof ONE_BYTE - 1}},
     UNSUP, "@/model.safetensors is a safetensors file; give its directory, which also holds config.json and "
           "tokenizer.json"},
    {"dir-lfs-pointer", NULL, {{"model.safetensors", "version https://git-lfs.github.com/spec/v1\n", 0}},
     DATA, "@/model.safetensors is a git-lfs pointer, not the weights; run git lfs pull"},
    {"index-bad-json", NULL, {{INDEX, "{", 0}},
     DATA, "@/model.safetensors.index.json: not valid JSON at byte 1 (line 1): string or '}' expected near end of "
           "file"},
    {"index-no-map", NULL, {{INDEX, "{\"weight_map\":[]}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map missing or empty; an object {tensor: file} was expected"},
    {"index-empty-map", NULL, {{INDEX, "{\"weight_map\":{}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map missing or empty; an object {tensor: file} was expected"},
    {"index-upwards", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"../w.safetensors\"}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map gives no plain .safetensors file name for w"},
    {"index-absolute", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"/etc/w.safetensors\"}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map gives no plain .safetensors file name for w"},
    {"index-number", NULL, {{INDEX, "{\"weight_map\":{\"w\":1}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map gives no plain .safetensors file name for w"},
    {"index-nul", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"a\\u0000.safetensors\"}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map gives no plain .safetensors file name for w"},
    {"index-other-file", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"pytorch_model.bin\"}}", 0}},
     DATA, "@/model.safetensors.index.json: weight_map gives no plain .safetensors file name for w"},
    {"shard-absent", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\"}}", 0}},
     NT_E_NOINPUT, "@/a.safetensors: cannot be opened: No such file or directory"},
    {"shard-without-tensor", NULL, {{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\",\"v\":\"a.safetensors\"}}", 0},
     {"a.safetensors", ONE_BYTE, sizeof ONE_BYTE - 1}},
     DATA, "@: model.safetensors.index.json lists tensor v in a.safetensors, which does not hold it; fetch the "
           "model again"},
    {"shard-of-other-tensor", NULL,
     {{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\",\"v\":\"b.safetensors\"}}", 0},
     {"a.safetensors", ONE_BYTE, sizeof ONE_BYTE - 1}, {"b.safetensors", ONE_BYTE, sizeof ONE_BYTE - 1}},
     DATA, "@: model.safetensors.index.json lists tensor v in b.safetensors, which does not hold it; fetch the "
           "model again"},
};
// clang-format on

/* --- running ------------------------------------------------------------------------------------------------------ */

static nt_status open_and_read(const char *path) {
    struct nt_tensor_source *s = NULL;
    NT_TRY(nt_tensor_source_open(path, &s));
    nt_status st = NT_OK;
    for (int64_t i = 0; i < s->n_tensors && st == NT_OK; i++) {
        const struct nt_tensor_info *t = &s->tensors[i];
        const int64_t n = t->n_dims > 2 ? 0 : nt_tensor_n_rows(t) * nt_tensor_n_cols(t);
        float *floats = malloc((size_t)n * sizeof *floats + 1);
        if (!floats) __builtin_trap();
        st = nt_tensor_source_read(s, t, 0, t->n_dims > 2 ? 0 : nt_tensor_n_rows(t), NT_READ_F32, floats);
        free(floats);
    }
    nt_tensor_source_close(s);
    return st;
}

/* says with @ replaced by dir/given. */
static void expected_text(const char *says, const char *path, struct nt_strbuf *out) {
    for (; *says; says++) {
        if (*says == '@')
            nt_strbuf_adds(out, path);
        else
            nt_strbuf_addc(out, *says);
    }
}

/* How rows are run. */
struct runner {
    const char *program; /* NULL: in this process */
    long n_run;
};

/* Exit code of `program inspect path`; its stderr in out. */
static int inspect(const char *program, const char *path, struct nt_strbuf *out) {
    struct nt_strbuf command = NT_STRBUF_INIT;
    nt_strbuf_addf(&command, "'%s' inspect '%s' 2>&1 >/dev/null", program, path);
    FILE *f = popen(nt_strbuf_cstr(&command), "r");
    nt_strbuf_release(&command);
    if (!f) __builtin_trap();
    char line[4096];
    while (fgets(line, sizeof line, f)) nt_strbuf_adds(out, line);
    const int rc = pclose(f);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128;
}

static int check_program(const struct runner *r, const char *name, const char *path, nt_status code, const char *want) {
    struct nt_strbuf out = NT_STRBUF_INIT;
    const int got = inspect(r->program, path, &out);
    const bool ok = got == nt_status_exit_code(code) && strstr(nt_strbuf_cstr(&out), want) != NULL;
    if (!ok) {
        printf("FAIL %s inspect (%s)\n  expected exit code %d: %s\n  got      exit code %d: %s\n", r->program, name,
               nt_status_exit_code(code), want, got, nt_strbuf_cstr(&out));
    }
    nt_strbuf_release(&out);
    return ok ? 0 : 1;
}

/* Whether inspect has to fail on it: the fault is found when the model is opened, and the path is taken for a model. */
static bool inspect_sees(const char *path) {
    struct nt_tensor_source *s = NULL;
    const nt_status st = nt_tensor_source_open(path, &s);
    nt_tensor_source_close(s);
    char magic[4] = {0};
    FILE *f = nt_is_dir(path) ? NULL : fopen(path, "rb");
    const bool gguf = f && fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
    if (f) fclose(f);
    return st != NT_OK && (gguf || nt_is_dir(path));
}

/* 0 when the row holds. path: what is opened; base: what @ stands for. */
static int check(struct runner *r, const char *kind, const char *name, const char *path, const char *base,
                 nt_status code, const char *says) {
    struct nt_strbuf want = NT_STRBUF_INIT;
    if (r->program) {
        if (!inspect_sees(path)) return 0;
        r->n_run++;
        expected_text(says, base, &want);
        const int bad = check_program(r, name, path, code, nt_strbuf_cstr(&want));
        nt_strbuf_release(&want);
        return bad;
    }
    r->n_run++;
    nt_error_clear();
    const nt_status got = open_and_read(path);
    const char *text = got == NT_OK ? "" : nt_error_last()->text;
    expected_text(says, base, &want);
    const bool ok = got == code && strcmp(text, nt_strbuf_cstr(&want)) == 0;
    if (!ok) {
        printf("FAIL %s/%s\n  expected exit code %d: %s\n  got      exit code %d: %s\n", kind, name,
               nt_status_exit_code(code), nt_strbuf_cstr(&want), nt_status_exit_code(got), text);
    }
    nt_strbuf_release(&want);
    return ok ? 0 : 1;
}

static void join(char out[PATH_MAX], const char *a, const char *b) {
    if (snprintf(out, PATH_MAX, "%s/%s", a, b) >= PATH_MAX) __builtin_trap();
}

static void gguf_bytes(const struct gguf_row *row, struct nt_strbuf *b) {
    struct gguf_plan p = row->plan;
    nt_strbuf_reset(b);
    if (p.cut == SIZE_MAX) return;
    put_gguf(b, &p);
}

static void safetensors_bytes(const struct safetensors_row *row, struct nt_strbuf *b) {
    struct safetensors_plan p = row->plan;
    nt_strbuf_reset(b);
    if (p.keep == SIZE_MAX) return;
    put_safetensors(b, &p);
}

static int run_path_row(struct runner *r, const struct path_row *row, const char *dir) {
    char sub[PATH_MAX], path[PATH_MAX];
    join(sub, dir, row->name);
    if (mkdir(sub, 0777) != 0) __builtin_trap();
    for (size_t i = 0; i < LEN(row->files) && row->files[i].name; i++) {
        join(path, sub, row->files[i].name);
        write_file(path, row->files[i].text, row->files[i].len ? row->files[i].len : strlen(row->files[i].text));
    }
    join(path, sub, row->given ? row->given : "");
    const int bad = check(r, "path", row->name, row->given ? path : sub, sub, row->code, row->says);
    for (size_t i = 0; i < LEN(row->files) && row->files[i].name; i++) {
        join(path, sub, row->files[i].name);
        (void)unlink(path);
    }
    (void)rmdir(sub);
    return bad;
}

static int run(struct runner *r, const char *dir) {
    struct nt_strbuf b = NT_STRBUF_INIT;
    char path[PATH_MAX];
    int bad = 0;
    join(path, dir, "model.gguf");
    for (size_t i = 0; i < LEN(gguf_rows); i++) {
        gguf_bytes(&gguf_rows[i], &b);
        write_file(path, b.len ? b.data : "", b.len);
        bad += check(r, "gguf", gguf_rows[i].name, path, path, gguf_rows[i].code, gguf_rows[i].says);
    }
    (void)unlink(path);
    join(path, dir, "model.safetensors");
    for (size_t i = 0; i < LEN(safetensors_rows); i++) {
        safetensors_bytes(&safetensors_rows[i], &b);
        write_file(path, b.len ? b.data : "", b.len);
        bad += check(r, "safetensors", safetensors_rows[i].name, dir, path, safetensors_rows[i].code,
                     safetensors_rows[i].says);
    }
    (void)unlink(path);
    for (size_t i = 0; i < LEN(path_rows); i++) bad += run_path_row(r, &path_rows[i], dir);
    nt_strbuf_release(&b);
    printf("%zu GGUF files, %zu safetensors files, %zu other; %ld rows run, %d wrong\n", LEN(gguf_rows),
           LEN(safetensors_rows), LEN(path_rows), r->n_run, bad);
    return bad;
}

static void write_all(const char *dir) {
    struct nt_strbuf b = NT_STRBUF_INIT;
    char sub[PATH_MAX], path[PATH_MAX];
    for (int kind = 0; kind < 2; kind++) {
        join(sub, dir, kind == 0 ? "gguf" : "safetensors");
        if (nt_mkdir_p(sub) != NT_OK) __builtin_trap();
        for (size_t i = 0; i < (kind == 0 ? LEN(gguf_rows) : LEN(safetensors_rows)); i++) {
            if (kind == 0)
                gguf_bytes(&gguf_rows[i], &b);
            else
                safetensors_bytes(&safetensors_rows[i], &b);
            join(path, sub, kind == 0 ? gguf_rows[i].name : safetensors_rows[i].name);
            write_file(path, b.len ? b.data : "", b.len);
        }
    }
    nt_strbuf_release(&b);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_all(argv[2]);
        return 0;
    }
    struct runner r = {.program = argc == 3 && strcmp(argv[1], "--program") == 0 ? argv[2] : NULL};
    char dir[] = "/tmp/nt-fault-XXXXXX";
    if (!mkdtemp(dir)) return 1;
    const int bad = run(&r, dir);
    (void)rmdir(dir);
    return bad == 0 && r.n_run > 0 ? 0 : 1;
}
