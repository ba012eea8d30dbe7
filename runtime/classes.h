// Class names known without a checkpoint.
#ifndef CLASSES_H
#define CLASSES_H

enum { CLASSES_IMAGENET = 1000 };
const char *classes_imagenet(int i); // NULL outside of 0..999

#endif
