/* The names that a run folder is made of. */
#ifndef STORE_FOLDER_H
#define STORE_FOLDER_H

#define FOLDER_WEIGHTS "weights"
#define FOLDER_INFLIGHT "inflight"
#define FOLDER_DATA "data"
#define FOLDER_LOCK "lock"
#define FOLDER_CONTROL "control.json"

#endif
