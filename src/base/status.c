#include "base/status.h"

const char *cmi_status_text(cmi_status st)
{
    switch (st) {
#define CMI_STATUS_CASE(name, code, text)                                                          \
    case name:                                                                                     \
        return text;
        CMI_STATUS_TABLE(CMI_STATUS_CASE)
#undef CMI_STATUS_CASE
    }
    return "unknown status";
}
