#include "greeting.h"

#include <stdio.h>

int main(void)
{
    printf("greeting %s\n", greeting_version());
    return greeting_print();
}
