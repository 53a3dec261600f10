#include "tree/search_limit.h"

#include <math.h>

#include "tree/tree.h"

const struct search_limit search_limits[SEARCH_LIMIT_COUNT] = {
    [SEARCH_LIMIT_ROUNDS] = {"rounds", "search", true, 20.0, 0.0, TREE_NODES_MAX - 1},
    [SEARCH_LIMIT_CORE_HOURS] = {"core_hours", "limits", false, 0.0, 0.0, 1e9},
    [SEARCH_LIMIT_GPU_HOURS] = {"gpu_hours", "limits", false, 0.0, 0.0, 1e9},
    [SEARCH_LIMIT_GOAL_SCORE] = {"goal_score", "search", false, NAN, -1e300, 1e300},
    [SEARCH_LIMIT_AGENT_TOKENS] = {"agent_tokens", "limits", true, 0.0, 0.0, 0x1p50},
    [SEARCH_LIMIT_AGENT_MONEY] = {"agent_money_usd", "limits", false, 0.0, 0.0, 1e9},
};

double search_limit_read(struct json_reader *reader, enum search_limit_id id, double fallback)
{
    const struct search_limit *limit = &search_limits[id];
    if (!limit->whole) {
        return json_read_number(reader, limit->name, fallback, limit->min, limit->max);
    }
    int64_t value =
        json_read_int(reader, limit->name, -1, (int64_t)limit->min, (int64_t)limit->max);
    return value >= 0 ? (double)value : fallback;
}

bool search_limit_fits(enum search_limit_id id, double value)
{
    const struct search_limit *limit = &search_limits[id];
    return value >= limit->min && value <= limit->max && (!limit->whole || value == floor(value));
}

bool search_limit_same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}
