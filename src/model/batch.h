/* Packed sequences: what one forward pass reads. Arrays are on the host and borrowed. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include <stdint.h>

/*   ids       a b c d | e f g | h i j k     N tokens of S sequences one after the other
 *   position  0 1 2 3 | 0 1 2 | 0 1 2 3
 *   target    - - d E | - g E | - - - E     the token that should follow, -1 where no loss is taken
 *   starts    0         4       7        11 (S+1 entries) */
struct batch {
    int64_t tokens;           /* N */
    int64_t sequences;        /* S */
    const int32_t *ids;       /* (N), 0..V-1 */
    const int32_t *positions; /* (N) */
    const int32_t *targets;   /* (N), -1 or 0..V-1 */
    const int32_t *starts;    /* (S+1) */
    int64_t target_count;     /* targets that are not -1 */
};

#endif
