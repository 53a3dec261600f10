/* The rows of the registry in scorer.c; each lives in the file of its name. */
#ifndef EVAL_SCORERS_H
#define EVAL_SCORERS_H

#include "eval/scorer.h"

extern const struct scorer scorer_accuracy;
extern const struct scorer scorer_exact_match;
extern const struct scorer scorer_macro_f1;
extern const struct scorer scorer_rouge1;
extern const struct scorer scorer_rouge_l;
extern const struct scorer scorer_command;

#endif
