/* Times as people write them in data, to microseconds since 1970.
 *
 * Accepted: RFC 3339 ("2026-02-03T04:05:06.789+01:00", "...Z", with a blank for the T, without the zone: UTC) and a
 * date alone ("2026-02-03": its midnight); years 1970 to 9999. Leap seconds are refused. The calendar is the proleptic
 * Gregorian one (days from 0000-03-01, in eras of 400 years). No state; pure functions; false means not a time. */
#ifndef NT_ISOTIME_H
#define NT_ISOTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool nt_isotime_parse(const char *text, size_t len, int64_t *us);
bool nt_isotime_from_seconds(double seconds, int64_t *us);
enum { NT_ISOTIME_TEXT = 64 };
/* "2026-02-03T04:05:06Z", whole seconds. */
void nt_isotime_print(int64_t us, char text[NT_ISOTIME_TEXT]);

#endif
