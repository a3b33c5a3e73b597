/* tests/test.h - what cmocka wants included before it, in one place. */
#ifndef CMI_TESTS_TEST_H
#define CMI_TESTS_TEST_H

/* clang-format off: cmocka.h needs these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
/* clang-format on */

#endif
