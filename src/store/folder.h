/* The names that a run folder is made of. */
#ifndef STORE_FOLDER_H
#define STORE_FOLDER_H

#include "base/status.h"

#define FOLDER_WEIGHTS "weights"
#define FOLDER_INFLIGHT "inflight"
#define FOLDER_DATA "data"
#define FOLDER_LOCK "lock"
#define FOLDER_CONTROL "control.json"

/* Makes the folder and its subfolders. */
enum status folder_make(const char *folder, struct error *err);

/* Removes what others wrote aside and did not rename (*.tmp). Best effort. */
void folder_sweep(const char *folder);

#endif
