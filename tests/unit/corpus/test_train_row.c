/* Rows of training data: what each shape becomes, what is refused with which sentence, and what a row says of itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "isotime.h"
#include "row_meta.h"
#include "train_row.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct nt_json *parse_json(const char *text) {
    struct nt_json *doc = NULL;
    if (nt_json_parse(text, strlen(text), "row", &doc) != NT_OK) fail_msg("%s", nt_error_last()->text);
    return doc;
}

/* "user:q|assistant:a*0.5" of a list; weight where it is not 1 for assistants and 0 for others. */
static void describe(const struct nt_train_row *row, const struct nt_row_list *l, struct nt_strbuf *out) {
    for (int32_t i = 0; i < l->n; i++) {
        const struct nt_row_message *m = &l->m[i];
        const double usual = strcmp(m->role, "assistant") == 0 ? 1 : 0;
        nt_strbuf_addf(out, "%s%s:", i ? "|" : "", m->role);
        nt_strbuf_add(out, nt_strbuf_cstr(&row->text) + m->at, m->len);
        if ((double)m->weight != usual) nt_strbuf_addf(out, "*%g", (double)m->weight);
        if (m->has_more) nt_strbuf_addc(out, '+');
    }
}

static void check_shape(const char *json, const char *want) {
    struct nt_train_row row = {0};
    struct nt_strbuf out = NT_STRBUF_INIT;
    enum nt_row_format format = NT_ROW_MESSAGES;
    bool request = false;
    struct nt_json *doc = parse_json(json);
    assert_true(nt_train_row_detect(doc, &format, &request));
    nt_train_row_parse(&row, doc, format);
    if (row.error[0]) fail_msg("%s: %s", json, row.error);
    nt_strbuf_addf(&out, "%s %s ", nt_row_format_name(format), row.kind == NT_CONV_TEXT ? "text" : "chat");
    describe(&row, &row.messages, &out);
    if (row.chosen.n > 0) {
        nt_strbuf_adds(&out, " > ");
        describe(&row, &row.chosen, &out);
        nt_strbuf_adds(&out, " > ");
        describe(&row, &row.rejected, &out);
    }
    if (row.label >= 0) nt_strbuf_addf(&out, " =%d", row.label);
    if (row.has_tools) nt_strbuf_adds(&out, " tools");
    if (row.repeats) nt_strbuf_adds(&out, " repeats");
    if (row.unread) nt_strbuf_addf(&out, " unread %s", row.unread);
    if (!isnan(row.margin)) nt_strbuf_addf(&out, " margin %g", (double)row.margin);
    assert_string_equal(nt_strbuf_cstr(&out), want);
    nt_strbuf_release(&out);
    nt_train_row_release(&row);
    nt_json_free(doc);
}

static void test_shapes(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'a'}]}",
         "messages chat user:q|assistant:a"                                                                                                                                                       },
        {"{'messages':[{'role':'user','content':'q','weight':2},{'role':'assistant','content':'a','weight':0}]}",
         "messages chat user:q*2|assistant:a*0"                                                                                                                                                   },
        {"{'messages':[{'role':'user','content':[{'type':'text','text':'x'},{'type':'text','text':'y'}]},{'role':'"
         "assistant',"
         "'tool_calls':[1]}],'tools':[{}]}",                                                                    "messages chat user:x\ny|assistant:+ tools"                              },
        {"{'prompt':'p','completion':'c'}",                                                                              "completion text prompt:p|assistant:c"                                   },
        {"{'prompt':[{'role':'assistant','content':'m'}],'completion':[{'role':'assistant','content':'c'}]}",
         "completion chat assistant:m*0|assistant:c"                                                                                                                                              },
        {"{'prompt':[{'role':'system','content':'s'},{'role':'user','content':'q'}],'completion':[{'role':'system',"
         "'content':'s'},{'role':'user','content':'q'},{'role':'assistant','content':'c'}]}",                   "completion chat system:s|user:q|assistant:c"                            },
        {"{'prompt':[{'role':'system','content':'s'},{'role':'user','content':'q'}],'completion':[{'role':'user',"
         "'content':'q'},{'role':'assistant','content':'c'}]}",                                                 "completion chat system:s|user:q|assistant:c"                            },
        {"{'prompt':[{'role':'user','content':'q'}],'completion':[{'role':'user','content':'q'}]}",
         "completion chat user:q|user:q"                                                                                                                                                          },
        {"{'prompt':[{'role':'user','content':'q'}],'completion':[{'role':'user','content':'q'},{'role':'assistant',"
         "'content':'c'}],'label':false}",                                                                      "label chat user:q|assistant:c =0"                                       },
        {"{'prompt':'q','completion':'qc'}",                                                                             "completion text prompt:q|assistant:qc repeats"                          },
        {"{'prompt':'q','completion':'qc','label':true}",                                                                "label text prompt:q|assistant:qc =1 repeats"                            },
        {"{'prompt':'q','chosen':'qc','rejected':'qr'}",
         "preference text prompt:q > assistant:qc > assistant:qr repeats"                                                                                                                         },
        {"{'prompt':'q','chosen':'qc','rejected':'r'}",                                                                  "preference text prompt:q > assistant:qc > assistant:r"                  },
        {"{'prompt':'','chosen':'c','rejected':'r'}",                                                                    "preference text prompt: > assistant:c > assistant:r"                    },
        {"{'prompt':'q','chosen':[{'role':'assistant','content':'m'},{'role':'user','content':'x'},{'role':'assistant',"
         "'content':'c'}],'rejected':[{'role':'assistant','content':'m'},{'role':'assistant','content':'r'}]}", "preference chat user:q|assistant:m*0 > user:x|assistant:c > assistant:r"},
        {"{'conversations':[{'from':'human','value':'q'},{'from':'gpt','value':'a'}],'system':'s'}",
         "sharegpt chat system:s|user:q|assistant:a"                                                                                                                                              },
        {"{'conversations':[{'from':'human','value':'q'},{'from':'gpt','value':'a','weight':0},{'from':'gpt','value':'"
         "b'}]}",                                                                                               "sharegpt chat user:q|assistant:a*0|assistant:b"                         },
        {"{'conversations':[{'from':'human','value':'q'},{'from':'function_call','value':'f'},{'from':'observation','"
         "value':'o'}]}",                                                                                       "sharegpt chat user:q|assistant:f+|tool:o"                               },
        {"{'conversations':[{'from':'gpt','value':'m'},{'from':'human','value':'q'}],'chosen':{'from':'gpt','value':'c'"
         "},"
         "'rejected':{'from':'gpt','value':'r'}}",                                                              "sharegpt chat assistant:m*0|user:q > assistant:c > assistant:r"         },
        {"{'conversations':[{'from':'gpt','value':'m'},{'from':'human','value':'q'},{'from':'gpt','value':'a'}],'kto_"
         "tag':false}",                                                                                         "sharegpt chat assistant:m*0|user:q|assistant:a =0"                      },
        {"{'instruction':'i','input':'x','output':'o','history':[['q','a']],'system':'s'}",
         "alpaca chat system:s|user:q|assistant:a|user:i\nx|assistant:o"                                                                                                                          },
        {"{'instruction':'i','input':'','output':'o'}",                                                                  "alpaca chat user:i|assistant:o"                                         },
        {"{'instruction':'','input':'x','output':'o'}",                                                                  "alpaca chat user:x|assistant:o"                                         },
        {"{'instruction':'i','chosen':'c','rejected':'r','history':[['q','a']]}",
         "alpaca chat user:q|assistant:a*0|user:i > assistant:c > assistant:r"                                                                                                                    },
        {"{'instruction':'i','output':'o','kto_tag':true}",                                                              "alpaca chat user:i|assistant:o =1"                                      },
        {"{'system':'s','question':'q','chosen':'c','rejected':'r'}",
         "preference text prompt: > assistant:c > assistant:r unread system"                                                                                                                      },
        {"{'system':'','question':'q','chosen':'c','rejected':'r'}",
         "preference text prompt: > assistant:c > assistant:r unread question"                                                                                                                    },
        {"{'prompt':'p','question':'q','chosen':'c','rejected':'r'}",
         "preference text prompt:p > assistant:c > assistant:r"                                                                                                                                   },
        {"{'system':'s','messages':[{'role':'user','content':'q'},{'role':'assistant','content':'a'}]}",
         "messages chat user:q|assistant:a unread system"                                                                                                                                         },
        {"{'system':'s','messages':[{'role':'system','content':'s'},{'role':'user','content':'q'},{'role':'assistant','"
         "content':'a'}]}",                                                                                     "messages chat system:s|user:q|assistant:a"                              },
        {"{'prompt':'p','chosen':'c','rejected':'r','margin':0.5}",
         "preference text prompt:p > assistant:c > assistant:r margin 0.5"                                                                                                                        },
        {"{'chosen':[{'role':'user','content':'q'},{'role':'assistant','content':'m'},{'role':'user','content':'x'},{'"
         "role':"
         "'assistant','content':'c'}],'rejected':[{'role':'user','content':'q'},{'role':'assistant','content':'m'},{'"
         "role':"
         "'user','content':'y'}]}",                                                                             "preference chat user:q|assistant:m*0 > user:x|assistant:c > user:y"     },
        {"{'prompt':'q','chosen':[{'role':'user','content':'q'},{'role':'assistant','content':'c'}],'rejected':[{'role'"
         ":'user',"
         "'content':'q'},{'role':'assistant','content':'r'}]}",                                                 "preference chat user:q > assistant:c > assistant:r"                     },
        {"{'prompt':'q','chosen':[{'role':'assistant','content':'c'}],'rejected':[{'role':'assistant','content':'r'}]}",
         "preference chat user:q > assistant:c > assistant:r"                                                                                                                                     },
        {"{'prompt':[{'role':'system','content':'s'},{'role':'user','content':'q'}],'chosen':[{'role':'system','"
         "content':"
         "'s'},{'role':'user','content':'q'},{'role':'assistant','content':'c'}],'rejected':[{'role':'system','content'"
         ":"
         "'s'},{'role':'user','content':'q'},{'role':'assistant','content':'r'}]}",                             "preference chat system:s|user:q > assistant:c > assistant:r"            },
        {"{'prompt':[{'role':'system','content':'s'},{'role':'user','content':'q'}],'chosen':[{'role':'user','content':"
         "'q'},{'role':'assistant','content':'c'}],'rejected':[{'role':'user','content':'q'},{'role':'assistant',"
         "'content':'r'}]}",                                                                                    "preference chat system:s|user:q > assistant:c > assistant:r"            },
        {"{'prompt':[{'role':'user','content':'q'}],'chosen':[{'role':'user','content':'q'},{'role':'assistant',"
         "'content':'c'}],'rejected':[{'role':'assistant','content':'r'}]}",                                    "preference chat user:q > user:q|assistant:c > assistant:r"              },
        {"{'prompt':[{'role':'user','content':'q'}],'chosen':[{'role':'assistant','tool_calls':[1]}],'rejected':[{'"
         "role':"
         "'assistant','tool_calls':[2]}]}",                                                                     "preference chat user:q > assistant:+ > assistant:+"                     },
        {"{'chosen':'H: hi A: yes','rejected':'H: hi A: no'}",
         "preference text prompt:H: hi A: > assistant: yes > assistant: no"                                                                                                                       },
        {"{'chosen':'\\u00e9','rejected':'\\u00ea'}",
         "preference text prompt: > assistant:\xc3\xa9 > assistant:\xc3\xaa"                                                                                                                      },
        {"{'prompt':'p','completion':'c','label':true}",                                                                 "label text prompt:p|assistant:c =1"                                     },
        {"{'prompt':[{'role':'assistant','content':'m'}],'completion':[{'role':'assistant','content':'c'}],'label':0}",
         "label chat assistant:m*0|assistant:c =0"                                                                                                                                                },
        {"{'custom_id':'a','body':{'messages':[{'role':'assistant','content':'m'},{'role':'user','content':'q'}],'"
         "tools':[1]}}",                                                                                        "batch chat assistant:m*0|user:q tools"                                  },
        {"{'custom_id':'a','body':{'prompt':['p']}}",                                                                    "batch text prompt:p"                                                    },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[512];
        (void)snprintf(json, sizeof json, "%s", cases[i][0]);
        for (char *p = json; *p; p++) *p = *p == '\'' ? '"' : *p;
        check_shape(json, cases[i][1]);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        enum nt_row_format format;
        const char *json, *says;
    } cases[] = {
        {NT_ROW_MESSAGES,   "[]",                                                                             "is array, expected an object"                            },
        {NT_ROW_MESSAGES,   "{}",                                                                             "messages is missing, expected a list"                    },
        {NT_ROW_MESSAGES,   "{'messages':[]}",                                                                "messages is empty"                                       },
        {NT_ROW_MESSAGES,   "{'messages':['x']}",                                                             "messages[0] is string, expected"                         },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'bot','content':'x'}]}",                                    "messages[0].role is \"bot\", expected one"               },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'prompt','content':'x'}]}",                                 "messages[0].role is \"prompt\""                          },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'user'}]}",                                                 "messages[0].content is missing, expected"                },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'user','content':null}]}",                                  "messages[0].content is null, expected"                   },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'user','content':[{'type':'image_url'}]}]}",
         "messages[0].content[0] is no"                                                                                                                                 },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'assistant','content':'a','weight':-1}]}",
         "messages[0].weight is -1, expected"                                                                                                                           },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'assistant','content':'a','weight':'x'}]}",
         "messages[0].weight is string, expected"                                                                                                                       },
        {NT_ROW_MESSAGES,   "{'messages':[{'role':'user','content':'a'}],'x':{'$text':[]}}",                  "which is reserved"                                       },
        {NT_ROW_COMPLETION, "{'completion':'c'}",                                                             "prompt is missing, expected a list"                      },
        {NT_ROW_COMPLETION, "{'prompt':'p','completion':[]}",                                                 "completion is array, expected a string"                  },
        {NT_ROW_COMPLETION, "{'prompt':[{'role':'user','content':'q'}],'completion':'c'}",
         "completion is string, expected a list"                                                                                                                        },
        {NT_ROW_SHAREGPT,   "{'conversations':[{'from':'alien','value':'x'}]}",                               "conversations[0].from is \"alien\""                      },
        {NT_ROW_COMPLETION, "{'prompt':'p','completion':'c','label':false}",                                  "has a label"                                             },
        {NT_ROW_SHAREGPT,   "{'conversations':[{'from':'gpt','value':'a','weight':'x'}]}",
         "conversations[0].weight is string"                                                                                                                            },
        {NT_ROW_SHAREGPT,   "{'conversations':[{'from':'human','value':3}]}",                                 "conversations[0].value is integer"                       },
        {NT_ROW_SHAREGPT,   "{'conversations':[{'from':'human','value':'q'}],'kto_tag':true}",
         "kto_tag needs a completion of one message"                                                                                                                    },
        {NT_ROW_ALPACA,     "{'output':'o'}",                                                                 "instruction is missing"                                  },
        {NT_ROW_ALPACA,     "{'instruction':'i','input':[],'output':'o'}",                                    "input is array, expected a string"                       },
        {NT_ROW_ALPACA,     "{'instruction':'i'}",                                                            "output is missing"                                       },
        {NT_ROW_ALPACA,     "{'instruction':'i','output':'o','history':[['q']]}",                             "history[0] is no [question, answer]"                     },
        {NT_ROW_PREFERENCE, "{'prompt':'p','chosen':'x','rejected':'x'}",                                     "chosen and rejected are equal"                           },
        {NT_ROW_PREFERENCE, "{'chosen':'x ','rejected':'x '}",                                                "chosen and rejected are equal"                           },
        {NT_ROW_PREFERENCE, "{'chosen':'x','rejected':[]}",                                                   "chosen is string and rejected is array"                  },
        {NT_ROW_PREFERENCE, "{'prompt':[{'role':'user','content':'q'}],'chosen':'x','rejected':'y'}",
         "prompt is array, but chosen is"                                                                                                                               },
        {NT_ROW_PREFERENCE, "{'prompt':'p','chosen':'x','rejected':'y','margin':'wide'}",
         "margin is string, expected a number"                                                                                                                          },
        {NT_ROW_LABEL,      "{'prompt':'p','completion':'c'}",                                                "label is missing, expected true or false"                },
        {NT_ROW_LABEL,      "{'prompt':'p','completion':'c','label':2}",                                      "label is neither true (1) nor false (0)"                 },
        {NT_ROW_LABEL,
         "{'prompt':[{'role':'user','content':'q'}],'completion':[{'role':'user','content':'c'}],'label':1}", "label needs a completion of one message of the assistant"},
        {NT_ROW_BATCH,      "{'body':{'prompt':'p'}}",                                                        "custom_id is missing"                                    },
        {NT_ROW_BATCH,      "{'custom_id':'a','body':{'prompt':[1,2]}}",                                      "token ids are no text"                                   },
    };
    struct nt_train_row row = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[512];
        (void)snprintf(json, sizeof json, "%s", cases[i].json);
        for (char *p = json; *p; p++) *p = *p == '\'' ? '"' : *p;
        struct nt_json *doc = parse_json(json);
        nt_train_row_parse(&row, doc, cases[i].format);
        if (!strstr(row.error, cases[i].says)) fail_msg("%s: said \"%s\"", json, row.error);
        nt_json_free(doc);
    }
    nt_train_row_release(&row);
}

static void test_detect(void **state) {
    (void)state;
    static const struct {
        const char *json;
        bool known, request;
    } cases[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",      true,  true },
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"q\"}]}", true,  false},
        {"{\"prompt\":\"p\"}",                                          true,  true },
        {"{\"custom_id\":\"a\",\"body\":{}}",                           true,  true },
        {"{\"prompt\":\"p\",\"completion\":\"c\"}",                     true,  false},
        {"{\"text\":\"p\"}",                                            false, false},
        {"[1]",                                                         false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum nt_row_format format = NT_ROW_MESSAGES;
        bool request = false;
        struct nt_json *doc = parse_json(cases[i].json);
        assert_int_equal(nt_train_row_detect(doc, &format, &request), cases[i].known);
        assert_int_equal(request, cases[i].request);
        nt_json_free(doc);
    }
}

/* The digest tells rows apart in everything that training sees, and in nothing else. */
static void test_digest(void **state) {
    (void)state;
    static const char *const rows[] = {
        "{\"prompt\":\"p\",\"completion\":\"c\",\"label\":true}",
        "{\"prompt\":\"p\",\"completion\":\"c\",\"label\":false}",
        "{\"prompt\":\"pc\",\"completion\":\"\",\"label\":true}",
        "{\"prompt\":\"p\",\"completion\":\"d\",\"label\":true}",
        "{\"user\":\"x\",\"label\":true,\"completion\":\"c\",\"prompt\":\"p\"}", /* as the first */
    };
    uint8_t digest[5][32];
    struct nt_train_row row = {0};
    for (int i = 0; i < 5; i++) {
        struct nt_json *doc = parse_json(rows[i]);
        nt_train_row_parse(&row, doc, NT_ROW_LABEL);
        assert_string_equal(row.error, "");
        nt_train_row_digest(&row, "", digest[i]);
        for (int k = 0; k < i; k++) assert_int_equal(memcmp(digest[i], digest[k], 32) == 0, i == 4 && k == 0);
        nt_json_free(doc);
    }
    nt_train_row_release(&row);
}

static void test_times(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t us; /* -1: not a time */
    } cases[] = {
        {"1970-01-01",                        0                 },
        {"2026-02-03",                        1770076800000000  },
        {"2026-02-03T04:05:06Z",              1770091506000000  },
        {"2026-02-03 04:05:06",               1770091506000000  },
        {"2026-02-03T04:05:06.789+01:00",     1770087906789000  },
        {"2026-02-03t04:05:06.1234567-00:30", 1770093306123456  },
        {"2000-02-29",                        951782400000000   },
        {"2024-12-31T23:59:59Z",              1735689599000000  },
        {"9999-12-31T23:59:59Z",              253402300799000000},
        {"1900-01-01",                        -1                },
        {"2023-02-29",                        -1                },
        {"2100-02-29",                        -1                },
        {"2026-13-01",                        -1                },
        {"2026-2-3",                          -1                },
        {"2026-02-03T24:00:00Z",              -1                },
        {"2026-02-03T04:05:60Z",              -1                },
        {"2026-02-03T04:05",                  -1                },
        {"2026-02-03T04:05:06.Z",             -1                },
        {"2026-02-03T04:05:06+25:00",         -1                },
        {"2026-02-03T04:05:06Zx",             -1                },
        {"1970-01-01T00:00:00+01:00",         -1                },
        {"",                                  -1                },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = -1;
        const bool good = nt_isotime_parse(cases[i].text, strlen(cases[i].text), &us);
        if (good != (cases[i].us >= 0) || us != cases[i].us) fail_msg("%s: %lld", cases[i].text, (long long)us);
    }
    for (int64_t day = 0; day < 2932897; day += 97) { /* printing and parsing are inverse, all over the calendar */
        char text[NT_ISOTIME_TEXT];
        int64_t us = -1;
        const int64_t t = (day * 86400 + day % 86400) * 1000000;
        nt_isotime_print(t, text);
        assert_true(nt_isotime_parse(text, strlen(text), &us));
        assert_int_equal(us, t);
    }
    int64_t us = -1;
    assert_true(nt_isotime_from_seconds(1.5, &us));
    assert_int_equal(us, 1500000);
    assert_false(nt_isotime_from_seconds(-1, &us));
    assert_false(nt_isotime_from_seconds((double)NAN, &us));
    assert_false(nt_isotime_from_seconds(1e12, &us));
}

/* What a row says, what is stated for silent rows, and what is nowhere said. */
static void test_meta(void **state) {
    (void)state;
    static const struct {
        const char *json;
        uint32_t consent;
        enum nt_basis basis;
        int64_t retention_days;
        const char *says; /* NULL: good */
    } cases[] = {
        {"{}",                                                        2,  NT_BASIS_LICENSE,  100, NULL                  },
        {"{'consent':null}",                                          2,  NT_BASIS_LICENSE,  100, NULL                  },
        {"{'consent':'none'}",                                        0,  NT_BASIS_NONE,     100, NULL                  },
        {"{'consent':[]}",                                            0,  NT_BASIS_NONE,     100, NULL                  },
        {"{'consent':'train,publish'}",                               10, NT_BASIS_CONSENT,  100, NULL                  },
        {"{'consent':['distill']}",                                   4,  NT_BASIS_CONSENT,  100, NULL                  },
        {"{'consent':{'purposes':['train'],'basis':'contract'}}",     2,  NT_BASIS_CONTRACT, 100, NULL                  },
        {"{'consent':{'purposes':'train','retention_until':864000}}", 2,  NT_BASIS_CONSENT,  10,  NULL                  },
        {"{'body':{'metadata':{'consent':'train'}}}",                 2,  NT_BASIS_CONSENT,  100, NULL                  },
        {"{'consent':'trian'}",                                       0,  NT_BASIS_NONE,     0,   "consent is \"trian\""},
        {"{'consent':'train\\u0000 withdrawn'}",                      0,  NT_BASIS_NONE,     0,   "consent is \"train"  },
        {"{'consent':['train\\u0000']}",                              0,  NT_BASIS_NONE,     0,   "consent is array"    },
        {"{'consent':'none,train'}",                                  0,  NT_BASIS_NONE,     0,   "consent is \"none,"  },
        {"{'consent':['train','none']}",                              0,  NT_BASIS_NONE,     0,   "consent is array"    },
        {"{'consent':true}",                                          0,  NT_BASIS_NONE,     0,   "consent is boolean"  },
        {"{'consent':{'purposes':['train'],'basis':'none'}}",         0,  NT_BASIS_NONE,     0,   "a basis other than"  },
        {"{'consent':{'purposes':['train'],'basis':'hope'}}",         0,  NT_BASIS_NONE,     0,   "consent is object"   },
        {"{'consent':{'basis':'contract'}}",                          0,  NT_BASIS_NONE,     0,   "consent is object"   },
        {"{'created':'yesterday'}",                                   0,  NT_BASIS_NONE,     0,   "created is \"yest"   },
        {"{'source':7}",                                              0,  NT_BASIS_NONE,     0,   "source is integer"   },
        {"{'source':'a\\u0000b'}",                                    0,  NT_BASIS_NONE,     0,   "without NUL"         },
        {"{'user':{}}",                                               0,  NT_BASIS_NONE,     0,   "user is object"      },
        {"{'split':'dev'}",                                           0,  NT_BASIS_NONE,     0,   "split is \"dev\""    },
    };
    struct nt_config c;
    struct nt_row_meta defaults, meta;
    char error[400];
    nt_config_init(&c);
    assert_int_equal(nt_row_defaults(&c, &defaults), NT_OK);
    assert_int_equal(defaults.subject.consent, 0); /* nothing is assumed */
    assert_int_equal(nt_config_set(&c, "ingest.consent=train"), NT_OK);
    assert_int_equal(nt_row_defaults(&c, &defaults), NT_E_CONFIG);
    assert_int_equal(nt_config_set(&c, "ingest.basis=license"), NT_OK);
    assert_int_equal(nt_config_set(&c, "ingest.retention_until=1970-04-11"), NT_OK);
    assert_int_equal(nt_row_defaults(&c, &defaults), NT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[256];
        (void)snprintf(json, sizeof json, "%s", cases[i].json);
        for (char *p = json; *p; p++) *p = *p == '\'' ? '"' : *p;
        struct nt_json *doc = parse_json(json);
        error[0] = '\0';
        const bool good = nt_row_meta_read(&c, &defaults, doc, &meta, error, sizeof error);
        if (good != !cases[i].says || (!good && !strstr(error, cases[i].says))) fail_msg("%s: \"%s\"", json, error);
        if (good) {
            assert_int_equal(meta.subject.consent, cases[i].consent);
            assert_int_equal(meta.subject.basis, cases[i].basis);
            assert_int_equal(meta.subject.retention_until_us, cases[i].retention_days * 86400000000);
        }
        nt_json_free(doc);
    }
    struct nt_json *doc = parse_json("{\"meta\":{\"who\":42,\"from\":\"app\"},\"user\":\"not this\"}");
    assert_int_equal(nt_config_set(&c, "ingest.subject_field=meta.who"), NT_OK);
    assert_int_equal(nt_config_set(&c, "ingest.source_field=meta.from"), NT_OK);
    assert_true(nt_row_meta_read(&c, &defaults, doc, &meta, error, sizeof error));
    assert_string_equal(meta.subject.user, "42");
    assert_string_equal(meta.source, "app");
    nt_json_free(doc);
    nt_config_release(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_refusals), cmocka_unit_test(test_detect),
        cmocka_unit_test(test_digest), cmocka_unit_test(test_times),    cmocka_unit_test(test_meta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
