#include "greeting.h"

#include <stdio.h>

const char *greeting_version(void) { return GREETING_VERSION; }

int greeting_print(void)
{
    FILE *words = fopen(GREETING_DATA "/words.txt", "r");
    int c;

    if (words == NULL) {
        perror(GREETING_DATA "/words.txt");
        return 1;
    }
    while ((c = fgetc(words)) != EOF)
        putchar(c);
    fclose(words);
    return 0;
}
