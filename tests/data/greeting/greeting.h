#ifndef GREETING_H
#define GREETING_H

/* The version of the library. */
const char *greeting_version(void);

/* Prints what is in the file of words below the prefix; 0, or 1 where there is none. */
int greeting_print(void);

#endif
