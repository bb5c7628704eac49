/* What a finished training run leaves for people: training_card.json, training_card.md and report.html.
 *
 * The report is one page without scripts or other files: the card's figures and the curves of loss (training and held
 * out), learning rate, gradient norm, margin, accuracy and throughput as inline SVG (chart.h), for light and dark
 * screens and for print. It is made from the card and metrics.jsonl alone, so it can be made again.
 * Files are replaced atomically. Threading: one thread, rank 0. Errors: NT_E_IO, NT_E_NOMEM. */
#ifndef NT_TRAIN_REPORT_H
#define NT_TRAIN_REPORT_H

#include "train_card.h"

/* Reads dir/metrics.jsonl, writes the three files into dir. md (may be NULL): gets the card's sections too, for the
 * adapter's README.md. */
NT_MUST nt_status nt_train_report_write(const struct nt_train_facts *f, const char *dir, struct nt_strbuf *md);
NT_MUST nt_status nt_train_report_html(const struct nt_json *card, const struct nt_history *h, struct nt_strbuf *out);

#endif
