/* Any bytes as JSONL input, plain or packed: scan, read every row. Promises checked: as many rows as the scan counted,
 * each with an id and either a request with a digest or an error that names its line; rows read alone are the same. */
#include "fuzz_file.h"
#include "reader.h"

static void check_row(const struct nt_request *q, int64_t row) {
    static const uint8_t zero[32];
    char begin[48];
    FUZZ_CHECK(q->row == row && q->line > row && q->custom_id && q->custom_id[0] != '\0');
    if (q->error) {
        (void)snprintf(begin, sizeof begin, "line %lld: ", (long long)q->line);
        FUZZ_CHECK(strncmp(q->error, begin, strlen(begin)) == 0 && strlen(q->error) > strlen(begin));
        FUZZ_CHECK(q->error_status == 400 && !q->messages && !q->prompt && !q->prompt_ids);
        return;
    }
    FUZZ_CHECK(memcmp(q->digest, zero, sizeof zero) != 0);
    FUZZ_CHECK((q->kind == NT_REQUEST_CHAT) == (q->n_messages > 0));
    FUZZ_CHECK(q->n_messages > 0 || q->prompt_len > 0 || q->n_prompt_ids > 0);
    for (int32_t i = 0; i < q->n_messages; i++) fuzz_touch(q->messages[i].content, q->messages[i].len + 1);
    fuzz_touch(q->prompt, q->prompt ? q->prompt_len + 1 : 0);
    const struct nt_sampling *s = &q->sampling;
    FUZZ_CHECK(s->max_tokens >= 1 && s->min_tokens <= s->max_tokens && s->n >= 1 && s->n <= 1024);
    FUZZ_CHECK(s->temperature >= 0 && s->top_p >= 0 && s->top_p <= 1 && s->top_logprobs >= -1);
    FUZZ_CHECK(s->top_logprobs <= NT_MAX_TOP_LOGPROBS && s->n_stop <= NT_MAX_STOP && s->n_stop_ids <= NT_MAX_STOP_IDS);
}

static void read_rows(const char *path, const struct nt_config *c, int64_t n) {
    struct nt_reader *all = NULL, *one = NULL;
    struct nt_request q, alone;
    FUZZ_CHECK(nt_reader_open(&all, path, c) == NT_OK);
    for (int64_t row = 0; row < n; row++) {
        FUZZ_CHECK(nt_reader_row(all, row, &q) == NT_OK);
        check_row(&q, row);
        if (row == n / 2 || row == n - 1) {
            FUZZ_CHECK(nt_reader_open(&one, path, c) == NT_OK && nt_reader_row(one, row, &alone) == NT_OK);
            FUZZ_CHECK(alone.line == q.line && strcmp(alone.custom_id, q.custom_id) == 0);
            FUZZ_CHECK(memcmp(alone.digest, q.digest, 32) == 0 && !alone.error == !q.error);
            nt_request_release(&alone);
            nt_reader_close(one);
        }
        nt_request_release(&q);
    }
    FUZZ_CHECK(nt_reader_row(all, n, &q) == NT_E_DATA);
    nt_reader_close(all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    int64_t n = 0;
    uint8_t digest[32];
    if (size >= 8 && data[0] == 0x89) return 0; /* HDF5 has its own test */
    const int fd = fuzz_file(data, size, path, sizeof path);
    struct nt_config c;
    nt_config_init(&c);
    nt_error_clear();
    const nt_status st = nt_reader_scan(path, &n, digest);
    fuzz_check_status(st);
    if (st == NT_OK) read_rows(path, &c, n);
    nt_config_release(&c);
    (void)close(fd);
    return 0;
}
