// npy HEIGHT WIDTH: a picture of three channels of made-up values as a .npy file on standard
// output.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int h = atoi(argv[1]), w = atoi(argv[2]);
    char about[118];
    snprintf(about, sizeof about,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, %d, %d), }", h, w);
    printf("\x93NUMPY\x01%c\x76%c%-117s\n", 0, 0, about);
    for (int i = 0; i < 3 * h * w; i++) {
        float v = (float)((i * 37 + 11) % 255) / 127 - 1;
        fwrite(&v, sizeof v, 1, stdout);
    }
    return ferror(stdout);
}
