/* text/jinja_exec.h - running statements. */
#ifndef CMI_TEXT_JINJA_EXEC_H
#define CMI_TEXT_JINJA_EXEC_H

#include "text/jinja_run.h"

/* How a list of statements ended. */
typedef enum cmi_jinja_flow {
    CMI_JINJA_DONE,
    CMI_JINJA_BROKE,     /* by break: the loop around it ends */
    CMI_JINJA_CONTINUED, /* by continue: the loop's next round comes */
    CMI_JINJA_FAILED,    /* the error stands in the run */
} cmi_jinja_flow;

CMI_NODISCARD cmi_jinja_flow cmi_jinja_exec(cmi_jinja_run *r, const cmi_jinja_nodes *nodes);

/* Variables within a body. The frame lies in the arena: macros that are defined there keep it. */
CMI_NODISCARD bool cmi_jinja_push_frame(cmi_jinja_run *r, cmi_jinja_frame *parent);
void cmi_jinja_pop_frame(cmi_jinja_run *r, cmi_jinja_frame *back_to);

CMI_NODISCARD bool cmi_jinja_assign(cmi_jinja_run *r, const cmi_jinja_node *target,
                                    const cmi_jinja_value *value);

/* Runs statements and takes what they print instead of printing it. */
CMI_NODISCARD cmi_jinja_flow cmi_jinja_capture(cmi_jinja_run *r, const cmi_jinja_nodes *nodes,
                                               cmi_jinja_value *out);

/* jinja_loop.c */
CMI_NODISCARD cmi_jinja_flow cmi_jinja_exec_for(cmi_jinja_run *r, const cmi_jinja_node *node);

#endif
