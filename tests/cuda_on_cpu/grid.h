/* Running a grid: blocks one after another, the threads of a block as fibers. */
#ifndef GRID_H
#define GRID_H

#include "on_cpu/launch.h"

/* Runs all blocks of a grid that was found to be allowed; returns when they are done. Under the
 * lock. */
void grid_run(const on_cpu_grid &grid);

#endif
