/* Any bytes as a journal file (first byte 0) or as the body of a record whose checksum holds (first byte 1). Promises
 * checked: damage is never an answer; what decodes encodes to the same bytes; nothing is read beyond the file. */
#include "fileio.h"
#include "fuzz_file.h"
#include "journal_index.h"
#include "log.h"

enum { N_ROWS = 64 };
static const uint8_t job[32] = {'j', 'o', 'b'};

/* Writes DIR/journal/part-x.ntj; a body gets header and front around it. */
static void write_part(const char *dir, const uint8_t *data, size_t size, bool body) {
    char path[128];
    struct nt_strbuf file = NT_STRBUF_INIT;
    uint8_t header[NT_JOURNAL_HEADER], front[NT_JOURNAL_FRONT];
    if (body) {
        nt_journal_make_header(job, header);
        nt_journal_make_front(data, (uint32_t)size, NT_JOURNAL_RESULT, front);
        nt_strbuf_add(&file, header, sizeof header);
        nt_strbuf_add(&file, front, sizeof front);
    }
    nt_strbuf_add(&file, data, size);
    (void)snprintf(path, sizeof path, "%s/journal", dir);
    FUZZ_CHECK(nt_mkdir_p(path) == NT_OK);
    (void)snprintf(path, sizeof path, "%s/journal/part-x.ntj", dir);
    fuzz_write(path, (const uint8_t *)nt_strbuf_cstr(&file), file.len);
    nt_strbuf_release(&file);
}

static void read_rows(const char *dir) {
    struct nt_journal_index x;
    uint8_t done[N_ROWS / 8] = {0};
    int64_t n_done = 0;
    const nt_status st = nt_journal_index_build(&x, dir, job, N_ROWS);
    fuzz_check_status(st);
    FUZZ_CHECK(nt_journal_scan(dir, job, N_ROWS, done, &n_done) == st);
    if (st != NT_OK) return;
    FUZZ_CHECK(n_done == x.n_done);
    for (int64_t row = 0; row < N_ROWS; row++) {
        struct nt_result r;
        FUZZ_CHECK(((done[row / 8] >> (row % 8)) & 1) == (x.at[row].offset != 0));
        if (x.at[row].offset == 0) continue;
        const nt_status read = nt_journal_index_read(&x, row, &r);
        fuzz_check_status(read);
        if (read != NT_OK) continue;
        struct nt_strbuf again = NT_STRBUF_INIT;
        FUZZ_CHECK(r.row == row);
        nt_result_encode(&r, &again);
        FUZZ_CHECK(again.len == x.at[row].n);
        for (int32_t i = 0; i < r.n_choice; i++) fuzz_touch(r.choice[i].text, r.choice[i].text_len + 1);
        nt_strbuf_release(&again);
        nt_result_release(&r);
    }
    nt_journal_index_release(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[] = "/tmp/nt-fuzz-journal-XXXXXX", path[128];
    if (size < 1) return 0;
    nt_log_init(1, 2, true); /* torn tails are no news here */
    FUZZ_CHECK(mkdtemp(dir));
    nt_error_clear();
    write_part(dir, data + 1, size - 1, data[0] & 1);
    read_rows(dir);
    (void)snprintf(path, sizeof path, "%s/journal/part-x.ntj", dir);
    FUZZ_CHECK(unlink(path) == 0);
    (void)snprintf(path, sizeof path, "%s/journal", dir);
    FUZZ_CHECK(rmdir(path) == 0 && rmdir(dir) == 0);
    return 0;
}
