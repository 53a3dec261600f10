/* A plan, coarse to fine: direction, then recipe and configurations, then repairs. What a model
 * gives is completed from the base and checked by the same readers as everything else; complaints
 * go back to it, each with its pointer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/model_parts.h"
#include "base/mem.h"
#include "data/recipe.h"

enum { GOAL_BYTES = 420, RATIONALE_BYTES = 12 * 1024, CONFIGS_WANTED = 3, RECIPE_BYTES = 6000 };

/* What the questions of one plan share. */
struct planning {
    const struct model_request *request;
    struct model_base base;
    cJSON *direction; /* owned; NULL before it was chosen */
};

/* ---- the base ---- */

enum status model_read_base(struct model *model, const struct search *search, int32_t parent,
                            struct model_base *out, struct error *err)
{
    const struct researcher_facts *facts = model->facts;
    memset(out, 0, sizeof(*out));
    TRY(model_records_update(model, search, err));
    int32_t node = evidence_is_trained(search, parent)
                       ? parent
                       : evidence_best_on_path(&model->history.evidence, parent);
    const struct candidate *best = node > 0 ? evidence_best(search, node) : NULL;
    if (best == NULL || !plan_config_read(best->config, &out->config)) {
        snprintf(out->name, sizeof(out->name), RULES_USUAL_SETTINGS);
        out->config = rules_first_config(facts, rules_first_method(facts), NULL);
        out->recipe = rules_first_recipe(facts, NULL);
        return out->recipe != NULL ? STATUS_OK : mem_fail(err, 256, "a recipe");
    }
    search_candidate_name(node, search->nodes[node].best, out->name);
    const char *recipe = search_text(search->nodes[node].recipe);
    return json_parse(recipe, strlen(recipe), "recipe", &out->recipe, err);
}

static void add_base(const struct model_base *base, struct model_values *values)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    cJSON *config = train_config_to_json(&base->config);
    char *config_line = json_print_line(config);
    char *recipe_line = json_print_line(base->recipe);
    buffer_printf(&text, "configuration: %s\nrecipe: ", config_line != NULL ? config_line : "");
    model_append_line(&text, recipe_line != NULL ? recipe_line : "[]", RECIPE_BYTES);
    buffer_append_char(&text, '\n');
    free(config_line);
    free(recipe_line);
    cJSON_Delete(config);
    model_add_text(values, "base", base->name, MODEL_OURS, 0);
    model_add_value(values, "base_plan", &text, MODEL_QUOTED, 1);
}

/* ---- what both prompts say ---- */

static void add_strategies(struct model_values *values)
{
    model_add_text(values, "strategies",
                   "\"first recipe\" (the first training), \"refine data\" (filter, balance, "
                   "clean, reshape rows), \"more data\" (more or other rows), \"change training\" "
                   "(method, learning rate, length, batch, schedule), \"refine best\" (small steps "
                   "around the best, other seeds)",
                   MODEL_OURS, 0);
}

static void add_common(struct model *model, const struct search *search,
                       const struct planning *planning, struct model_values *values)
{
    char node[16];
    snprintf(node, sizeof(node), "n%04d", (int)planning->request->parent);
    model_add_job(model, search, values);
    model_add_budget(model, search, values);
    model_add_documents(search, values, 6);
    model_add_under_way(model, search, planning->request, values, 5);
    model_add_text(values, "node", node, MODEL_OURS, 0);
    values->memory_node = planning->request->parent;
}

static void fill_direction(struct model *model, const struct search *search, void *context,
                           struct model_values *values)
{
    const struct planning *planning = context;
    add_common(model, search, planning, values);
    add_strategies(values);
    model_add_brief(search, values, 4);
    model_add_record(model, values, 3);
}

static void fill_plan(struct model *model, const struct search *search, void *context,
                      struct model_values *values)
{
    const struct planning *planning = context;
    const struct candidate *best = evidence_best(search, planning->request->parent);
    char number[32];
    add_common(model, search, planning, values);
    snprintf(number, sizeof(number), "%d", model->facts->configurations);
    model_add_text(values, "configurations", number, MODEL_OURS, 0);
    snprintf(number, sizeof(number), "about %.2g",
             best != NULL ? best->validation.standard_error : 0.0);
    model_add_text(values, "standard_error", number, MODEL_OURS, 0);
    add_base(&planning->base, values);
    model_add_samples(model, values, 7);
    model_add_keys(values, 4);
    model_add_operators(model, values, 2);
    model_add_files(search, values);
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    buffer_printf(
        &text, "%s (%s)\nhypothesis: %s\nwhy: %s\n", model_text(planning->direction, "title"),
        model_text(planning->direction, "strategy"), model_text(planning->direction, "hypothesis"),
        model_text(planning->direction, "why"));
    model_add_value(values, "direction", &text, MODEL_QUOTED, 1);
}

/* ---- what a schema cannot say ---- */

static bool is_known_file(const struct search *search, const char *path)
{
    for (int32_t i = 0; i < search->document_count; i++) {
        const char *file = model_document_file(&search->documents[i]);
        if (file != NULL && strcmp(file, path) == 0) {
            return true;
        }
    }
    return false;
}

/* Any "path" anywhere in a step. */
static void check_paths(const struct search *search, const cJSON *value, const char *pointer,
                        bool mix, int depth, struct json_problems *problems)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        const char *path = item->string != NULL && strcmp(item->string, "path") == 0
                               ? cJSON_GetStringValue(item)
                               : NULL;
        bool part =
            path != NULL && mix && (strcmp(path, "train") == 0 || strcmp(path, "rows") == 0);
        if (path != NULL && !part && !is_known_file(search, path)) {
            json_problems_add(problems, pointer,
                              "found the path \"%.100s\", allowed are the files that are listed%s",
                              path, mix ? ", \"train\" and \"rows\"" : "");
        }
        if (depth > 0 && item->child != NULL) {
            check_paths(search, item, pointer, mix, depth - 1, problems);
        }
    }
}

static void check_recipe(const struct model *model, const struct search *search,
                         const cJSON *recipe, struct json_problems *problems)
{
    const cJSON *step = NULL;
    int index = 0;
    recipe_check(recipe, "/recipe", problems);
    cJSON_ArrayForEach (step, recipe) {
        char pointer[48];
        const char *op = model_text(step, "op");
        snprintf(pointer, sizeof(pointer), "/recipe/%d", index++);
        if (strcmp(op, "code") == 0 && !model->options.code) {
            json_problems_add(problems, pointer, "\"code\" is not allowed in this job");
        }
        check_paths(search, step, pointer, strcmp(op, "mix") == 0, 4, problems);
    }
}

/* The base with a configuration's keys. */
static struct train_config complete(const struct model_base *base, const cJSON *object,
                                    const char *pointer, struct json_problems *problems)
{
    struct train_config config = base->config;
    train_config_read(object, pointer, problems, &config);
    if (config.sequence_length > config.batch_tokens) {
        config.batch_tokens = config.sequence_length;
    }
    if (config.patience > 0 && config.validations == 0) {
        config.validations = config.patience;
    }
    return config;
}

static const cJSON *recipe_of(const struct planning *planning, const cJSON *reply)
{
    const cJSON *recipe = cJSON_GetObjectItemCaseSensitive(reply, "recipe");
    return cJSON_IsArray(recipe) ? recipe : planning->base.recipe;
}

static void check_configs(const struct model *model, const struct planning *planning,
                          const cJSON *reply, struct json_problems *problems)
{
    const cJSON *configs = cJSON_GetObjectItemCaseSensitive(reply, "configs");
    char seen[SEARCH_CANDIDATES_MAX][HASH_TEXT_BYTES];
    const cJSON *object = NULL;
    int count = 0;
    cJSON_ArrayForEach (object, configs) {
        char pointer[48];
        struct json_problems own;
        struct error ignored;
        if (count == SEARCH_CANDIDATES_MAX) {
            break;
        }
        snprintf(pointer, sizeof(pointer), "/configs/%d", count);
        json_problems_init(&own);
        struct train_config config = complete(&planning->base, object, pointer, &own);
        /* What the base lacks together with a key is put right by complete(). */
        bool apart = strstr(buffer_text(&own.text), "a micro-batch holds whole") != NULL ||
                     strstr(buffer_text(&own.text), "nothing would be measured") != NULL;
        if (own.count > (apart ? 1 : 0)) {
            problems->count += own.count;
            buffer_append_text(&problems->text, buffer_text(&own.text));
        }
        json_problems_fini(&own);
        if (config.method == TRAIN_FULL && model->facts->lora_only) {
            json_problems_add(problems, pointer,
                              "method \"full\" does not fit in memory, allowed is \"lora\"");
        }
        if (plan_fingerprint(&config, recipe_of(planning, reply), seen[count], &ignored) !=
            STATUS_OK) {
            break;
        }
        if (plan_set_has(&model->history.tried, seen[count])) {
            json_problems_add(problems, pointer, "it was tried before with this recipe");
        }
        int same = 0;
        while (same < count && strcmp(seen[same], seen[count]) != 0) {
            same++;
        }
        if (same < count) {
            json_problems_add(problems, pointer, "it is the same as /configs/%d", same);
        }
        count++;
    }
    int wanted = model->facts->configurations < CONFIGS_WANTED ? model->facts->configurations
                                                               : CONFIGS_WANTED;
    if (count < wanted) {
        json_problems_add(problems, "/configs", "found %d, needed are %d different ones", count,
                          model->facts->configurations);
    }
}

static void check_plan(struct model *model, const struct search *search, void *context,
                       const cJSON *reply, struct json_problems *problems)
{
    const struct planning *planning = context;
    const cJSON *recipe = cJSON_GetObjectItemCaseSensitive(reply, "recipe");
    if (recipe != NULL) {
        check_recipe(model, search, recipe, problems);
    }
    if (problems->count == 0) {
        check_configs(model, planning, reply, problems);
    }
}

/* ---- the plan as data ---- */

/* "<title>: from <base>, <goal>": rules reads title and base of it, also after a restart. */
static void write_goal(const struct planning *planning, const cJSON *reply, struct buffer *out)
{
    char title[64];
    struct buffer text;
    buffer_init(&text, sizeof(title) - 1);
    model_append_line(&text, model_text(planning->direction, "title"), sizeof(title) - 5);
    snprintf(title, sizeof(title), "%s", buffer_text(&text));
    buffer_fini(&text);
    for (char *at = strchr(title, ':'); at != NULL; at = strchr(at, ':')) {
        *at = ',';
    }
    buffer_printf(out, "%s: from %s, ", title, planning->base.name);
    model_append_line(out, model_text(reply, "goal"), GOAL_BYTES / 2);
}

static void write_rationale(const struct planning *planning, const cJSON *reply, struct buffer *out)
{
    const cJSON *item = NULL;
    buffer_printf(out, "%s\nHypothesis: %s\nWhy: %s", model_text(reply, "rationale"),
                  model_text(planning->direction, "hypothesis"),
                  model_text(planning->direction, "why"));
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(planning->direction, "evidence")) {
        buffer_printf(out, "\nEvidence: %s", cJSON_IsString(item) ? item->valuestring : "");
    }
    buffer_printf(out, "\nExpected: %s\nRefuted if: %s", model_text(reply, "expectation"),
                  model_text(reply, "refuted_if"));
}

static bool copy_configs(const struct model *model, const struct planning *planning,
                         const cJSON *reply, struct plan *out)
{
    const cJSON *object = NULL;
    struct json_problems ignored;
    json_problems_init(&ignored);
    cJSON_ArrayForEach (object, cJSON_GetObjectItemCaseSensitive(reply, "configs")) {
        if (out->config_count == SEARCH_CANDIDATES_MAX ||
            out->config_count == model->facts->configurations) {
            break;
        }
        struct train_config config = complete(&planning->base, object, "", &ignored);
        out->configs[out->config_count] = train_config_to_json(&config);
        if (out->configs[out->config_count] == NULL) {
            break;
        }
        out->config_count++;
    }
    json_problems_fini(&ignored);
    return out->config_count > 0;
}

/* False without memory; the plan is then empty. */
static bool make_plan(const struct model *model, const struct planning *planning,
                      const struct model_reply *reply, struct plan *out)
{
    const struct model_request *request = planning->request;
    struct buffer goal;
    struct buffer rationale;
    struct buffer who;
    buffer_init(&goal, GOAL_BYTES);
    buffer_init(&rationale, RATIONALE_BYTES);
    buffer_init(&who, 256);
    write_goal(planning, reply->json, &goal);
    write_rationale(planning, reply->json, &rationale);
    model_append_line(&who, search_text(reply->call->provider), 40);
    buffer_append_char(&who, ' ');
    model_append_line(&who, search_text(reply->call->model), 128);
    memset(out, 0, sizeof(*out));
    out->parent = request->parent;
    out->number = request->number;
    out->strategy = mem_strdup(model_text(planning->direction, "strategy"));
    out->goal = mem_strdup(buffer_text(&goal));
    out->rationale = mem_strdup(buffer_text(&rationale));
    out->researcher = mem_strdup(buffer_text(&who));
    out->subject = mem_strdup(request->subject);
    out->recipe = cJSON_Duplicate(recipe_of(planning, reply->json), true);
    out->revision = reply->attempt;
    out->by_model = true;
    buffer_fini(&goal);
    buffer_fini(&rationale);
    buffer_fini(&who);
    bool whole = copy_configs(model, planning, reply->json, out) && out->strategy != NULL &&
                 out->goal != NULL && out->rationale != NULL && out->researcher != NULL &&
                 out->subject != NULL && out->recipe != NULL;
    if (!whole) {
        plan_fini(out);
    }
    return whole;
}

/* ---- walking ---- */

static struct model_reply ask_direction(struct model *model, const struct search *search,
                                        struct planning *planning)
{
    char key[SEARCH_CALL_KEY_BYTES];
    char repair[SEARCH_CALL_KEY_BYTES];
    snprintf(key, sizeof(key), "%s/direction", planning->request->subject);
    snprintf(repair, sizeof(repair), "%s/direction/repair", planning->request->subject);
    const struct model_question question = {
        .key = key,
        .repair = repair,
        .prompt = "direction",
        .purpose = "direction",
        .node = planning->request->parent,
        .fill = fill_direction,
        .context = planning,
    };
    return model_ask(model, search, &question);
}

static struct model_reply ask_plan(struct model *model, const struct search *search,
                                   struct planning *planning)
{
    const struct model_request *request = planning->request;
    char key[SEARCH_CALL_KEY_BYTES];
    char repair[SEARCH_CALL_KEY_BYTES];
    snprintf(key, sizeof(key), "%s/plan", request->subject);
    snprintf(repair, sizeof(repair), "%s/repair", request->subject);
    const struct model_question question = {
        .key = key,
        .repair = repair,
        .prompt = "plan",
        .purpose = "plan",
        .node = request->parent,
        .fill = fill_plan,
        .check = check_plan,
        .context = planning,
        .attempt = request->attempt,
        .complaint = request->complaint,
    };
    return model_ask(model, search, &question);
}

void model_walk_plan(struct model *model, const struct search *search,
                     struct model_request *request)
{
    struct planning planning = {.request = request};
    struct model_walk *walk = &request->walk;
    struct error err = {0};
    walk->outcomes = search->outcomes;
    if (model_read_base(model, search, request->parent, &planning.base, &err) != STATUS_OK) {
        snprintf(walk->why, sizeof(walk->why), "its base could not be read");
        walk->over = true;
        return;
    }
    struct model_reply reply = ask_direction(model, search, &planning);
    if (reply.state == MODEL_READY) {
        planning.direction = reply.json;
        reply = ask_plan(model, search, &planning);
    }
    walk->over = reply.state != MODEL_WAITS;
    walk->outcomes = reply.call != NULL ? reply.call->outcomes : search->outcomes;
    memcpy(request->waits_for, reply.waits_for, sizeof(request->waits_for));
    if (reply.state == MODEL_FAILED) {
        memcpy(walk->why, reply.why, sizeof(walk->why));
    } else if (reply.state == MODEL_READY && !make_plan(model, &planning, &reply, &walk->plan)) {
        snprintf(walk->why, sizeof(walk->why), "no memory for a plan");
    }
    model_reply_fini(&reply);
    cJSON_Delete(planning.direction);
    cJSON_Delete(planning.base.recipe);
}
