/* Files of arrays: every type comes back to the bit and reads in other tools; damage is found;
 * nothing is trusted. */
#include "store/sample.h"

#include <hdf5.h>

#include "base/mem.h"
#include "base/rng.h"
#include "store/arrays.h"
#include "store/seal.h"

static const struct store_array samples[] = {
    {"model/embed.weight", "matrix (tokens, features)", STORE_F32, 300, 70, false},
    {"model/layers/0/norm", "norm weights", STORE_BF16, 1, 64, true},
    {"moments", "squares", STORE_F64, 7, 3, false},
    {"model/layers/0/w", "matrix", STORE_BF16, 64, 2048, false},
    {"ids", "token ids", STORE_I32, 1, 1001, true},
    {"cursor", "rows", STORE_I64, 1, 5, true},
    {"bytes", "text", STORE_U8, 1, 3000001, true},
    {"empty", "nothing", STORE_F32, 0, 12, false},
    {"empty_vector", "nothing", STORE_F32, 1, 0, true},
    {"wide", "one row larger than a block", STORE_F32, 2, 400000, false},
};
enum { SAMPLE_COUNT = sizeof(samples) / sizeof(samples[0]) };

static size_t bytes_of(const struct store_array *array)
{
    return (size_t)(array->rows * array->cols) * store_type_bytes(array->type);
}

/* Bytes of array `index`: any bits, the same in every call. */
static void fill(int64_t index, unsigned char *to, size_t bytes)
{
    struct rng rng;
    rng_init(&rng, 9, (uint64_t)index);
    for (size_t i = 0; i < bytes; i++) {
        to[i] = (unsigned char)rng_u32(&rng);
    }
}

static enum status give(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    const struct store_array *arrays = context;
    fill(index, to, bytes_of(&arrays[index]));
    return STATUS_OK;
}

static enum status give_error(void *context, int64_t index, void *to, struct error *err)
{
    (void)context;
    (void)to;
    return index < 2 ? STATUS_OK : FAIL(err, STATUS_DEVICE, "the device is gone");
}

static void write_samples(const char *path)
{
    const struct store_attribute attributes[] = {{"base_folder", "models/tiny"},
                                                 {"config", "{\"learning_rate\":0.001}"},
                                                 {"empty", ""},
                                                 {"umlaut", "\xC3\xA4"}};
    struct error err = {0};
    if (store_arrays_write(path, "weights", samples, SAMPLE_COUNT, attributes, 4, give,
                           (void *)(uintptr_t)samples, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void test_round_trip(void **state)
{
    char path[FILE_PATH_BYTES];
    struct store_file *file = NULL;
    struct error err = {0};
    sample_path(*state, "a.h5", path);
    write_samples(path);
    if (store_arrays_open(path, "weights", &file, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(store_arrays_count(file), SAMPLE_COUNT);
    assert_string_equal(store_arrays_attribute(file, "base_folder"), "models/tiny");
    assert_string_equal(store_arrays_attribute(file, "empty"), "");
    assert_string_equal(store_arrays_attribute(file, "umlaut"), "\xC3\xA4");
    assert_null(store_arrays_attribute(file, "absent"));
    assert_int_equal(store_arrays_find(file, "absent"), -1);
    for (int64_t i = 0; i < SAMPLE_COUNT; i++) {
        const struct store_array *array = store_arrays_at(file, i);
        size_t bytes = bytes_of(&samples[i]);
        assert_string_equal(array->name, samples[i].name);
        assert_string_equal(array->meaning, samples[i].meaning);
        assert_int_equal(array->type, samples[i].type);
        assert_int_equal(array->rows, samples[i].rows);
        assert_int_equal(array->cols, samples[i].cols);
        assert_int_equal(array->vector, samples[i].vector);
        assert_int_equal(store_arrays_find(file, samples[i].name), i);
        unsigned char *wanted = malloc(bytes + 1);
        unsigned char *found = malloc(bytes + 1);
        fill(i, wanted, bytes);
        if (store_arrays_read(file, i, found, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_memory_equal(wanted, found, bytes);
        assert_int_equal(arrays_verify(file, i, &err), STATUS_OK);
        free(wanted);
        free(found);
    }
    store_arrays_close(file);
    assert_int_equal(store_arrays_open(path, "training", &file, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "\"weights\""));
    assert_int_equal(store_arrays_open(path, NULL, &file, &err), STATUS_OK);
    store_arrays_close(file);
    store_arrays_close(NULL);
}

/* Large arrays begin at pages, so that they can be read without HDF5 and without a copy. */
static void test_alignment(void **state)
{
    char path[FILE_PATH_BYTES];
    struct seal seal;
    sample_path(*state, "a.h5", path);
    write_samples(path);
    assert_int_equal(seal_check_file(path, "weights", &seal, NULL), STATUS_OK);
    assert_int_equal(seal.extent_count, SAMPLE_COUNT - 2); /* all but the empty ones */
    for (int64_t i = 0; i < seal.extent_count; i++) {
        assert_true(seal.extents[i].bytes < 4096 || seal.extents[i].offset % 4096 == 0);
    }
    seal_fini(&seal);
}

static enum status write_one(const char *path, const struct store_array *arrays, int64_t count,
                             struct error *err)
{
    return store_arrays_write(path, "data", arrays, count, NULL, 0, give, (void *)(uintptr_t)arrays,
                              err);
}

static void test_what_cannot_be(void **state)
{
    static const char *const names[] = {"",     "/a",     "a/",       "a//b", "./a",
                                        "a/..", "arrays", "arrays/x", "\xFF"};
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    sample_path(*state, "a.h5", path);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct store_array array = {"", "x", STORE_F32, 1, 1, true};
        snprintf(array.name, sizeof(array.name), "%s", names[i]);
        assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    }
    struct store_array array = {"a", "x", STORE_F32, INT64_MAX, 3, false};
    assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    array = (struct store_array){"a", "x", STORE_F32, -1, 3, false};
    assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    array = (struct store_array){"a", "x", STORE_F32, 2, 3, true};
    assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    array = (struct store_array){"a", "x", STORE_TYPE_COUNT, 2, 3, false};
    assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    memset(array.name, 'a', sizeof(array.name)); /* no end */
    array.type = STORE_F32;
    assert_int_equal(write_one(path, &array, 1, &err), STATUS_INVALID);
    const struct store_array twins[] = {{"a", "x", STORE_F32, 1, 3, false},
                                        {"a", "x", STORE_F32, 1, 3, false}};
    assert_int_equal(write_one(path, twins, 2, &err), STATUS_INVALID);
    /* A name that is a group and an array. */
    const struct store_array nested[] = {{"a", "x", STORE_F32, 1, 3, false},
                                         {"a/b", "x", STORE_F32, 1, 3, false}};
    assert_int_not_equal(write_one(path, nested, 2, &err), STATUS_OK);
    assert_int_equal(write_one("/no/such/folder/a.h5", nested, 1, &err), STATUS_NOT_FOUND);
    assert_false(file_exists(path));

    const struct store_attribute attribute = {"kind", "taken"};
    assert_int_not_equal(store_arrays_write(path, "data", nested, 1, &attribute, 1, give,
                                            (void *)(uintptr_t)nested, &err),
                         STATUS_OK);
    struct store_attribute many[ARRAYS_ATTRIBUTES_MAX + 1] = {{NULL, NULL}};
    assert_int_equal(store_arrays_write(path, "data", nested, 1, many, ARRAYS_ATTRIBUTES_MAX + 1,
                                        give, (void *)(uintptr_t)nested, &err),
                     STATUS_LIMIT);
}

/* What the giver says is the error; no file is left. */
static void test_giver_fails(void **state)
{
    char path[FILE_PATH_BYTES];
    char command[FILE_PATH_BYTES + 64];
    struct error err = {0};
    sample_path(*state, "a.h5", path);
    assert_int_equal(
        store_arrays_write(path, "data", samples, SAMPLE_COUNT, NULL, 0, give_error, NULL, &err),
        STATUS_DEVICE);
    assert_string_equal(err.message, "the device is gone");
    snprintf(command, sizeof(command), "test -z \"$(ls '%s')\"", (char *)*state);
    assert_int_equal(system(command), 0);
}

/* A long job description, a tokenizer: longer than an HDF5 header holds. */
static void test_long_attribute(void **state)
{
    char path[FILE_PATH_BYTES];
    struct store_file *file = NULL;
    char *text = malloc(200001);
    memset(text, 'x', 200000);
    text[200000] = '\0';
    const struct store_attribute attribute = {"long", text};
    sample_path(*state, "a.h5", path);
    assert_int_equal(store_arrays_write(path, "data", NULL, 0, &attribute, 1, NULL, NULL, NULL),
                     STATUS_OK);
    assert_int_equal(store_arrays_open(path, "data", &file, NULL), STATUS_OK);
    assert_string_equal(store_arrays_attribute(file, "long"), text);
    store_arrays_close(file);
    free(text);
}

/* Many arrays: more than fit in one page of the seal. */
static void test_many_arrays(void **state)
{
    enum { MANY = 2000 };
    char path[FILE_PATH_BYTES];
    struct store_file *file = NULL;
    struct store_array *arrays = calloc(MANY, sizeof(*arrays));
    struct error err = {0};
    sample_path(*state, "a.h5", path);
    for (int i = 0; i < MANY; i++) {
        snprintf(arrays[i].name, sizeof(arrays[i].name), "model.layers.%d.weight", i);
        arrays[i].rows = 1;
        arrays[i].cols = 1 + i % 7;
        arrays[i].vector = true;
    }
    if (write_one(path, arrays, MANY, &err) != STATUS_OK ||
        store_arrays_open(path, "data", &file, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    unsigned char wanted[64];
    unsigned char found[64];
    for (int i = 0; i < MANY; i += 97) {
        fill(i, wanted, bytes_of(&arrays[i]));
        assert_int_equal(store_arrays_read(file, i, found, &err), STATUS_OK);
        assert_memory_equal(wanted, found, bytes_of(&arrays[i]));
    }
    store_arrays_close(file);
    free(arrays);
}

static enum status read_all(const char *path, struct error *err)
{
    struct store_file *file = NULL;
    TRY(store_arrays_open(path, NULL, &file, err));
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < store_arrays_count(file) && status == STATUS_OK; i++) {
        status = arrays_verify(file, i, err);
    }
    store_arrays_close(file);
    return status;
}

static void test_cut_and_flipped(void **state)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct rng rng;
    sample_path(*state, "a.h5", path);
    assert_int_equal(write_one(path, samples, 6, NULL), STATUS_OK);
    sample_read(path, &whole);
    rng_init(&rng, 4, 0);
    alarm(120);
    for (int i = 0; i < 50; i++) {
        struct error err = {0};
        sample_write(path, whole.data, (size_t)rng_below(&rng, whole.len_bytes));
        assert_int_not_equal(read_all(path, &err), STATUS_OK);
        assert_non_null(strstr(err.message, path));
    }
    for (int i = 0; i < 200; i++) {
        struct error err = {0};
        size_t at = (size_t)rng_below(&rng, i < 50 ? 600 : whole.len_bytes);
        char before = whole.data[at];
        whole.data[at] = (char)(before ^ (1 << rng_below(&rng, 8)));
        sample_write(path, whole.data, whole.len_bytes);
        if (read_all(path, &err) == STATUS_OK) {
            fail_msg("byte %zu flipped, and nothing was found", at);
        }
        assert_non_null(strstr(err.message, path));
        whole.data[at] = before;
    }
    alarm(0);
    buffer_fini(&whole);
}

/* The message names the array whose values changed, and the other ones stay readable. */
static void test_damaged_array_is_named(void **state)
{
    char path[FILE_PATH_BYTES];
    struct seal seal;
    struct buffer whole;
    struct store_file *file = NULL;
    struct error err = {0};
    static float values[300 * 70];
    sample_path(*state, "a.h5", path);
    assert_int_equal(write_one(path, samples, 3, NULL), STATUS_OK);
    assert_int_equal(seal_check_file(path, NULL, &seal, NULL), STATUS_OK);
    sample_read(path, &whole);
    for (int64_t i = 0; i < seal.extent_count; i++) {
        if (seal.extents[i].bytes == (int64_t)sizeof(values)) {
            whole.data[seal.extents[i].offset + 5000] ^= 1;
        }
    }
    sample_write(path, whole.data, whole.len_bytes);
    assert_int_equal(store_arrays_open(path, NULL, &file, &err), STATUS_OK);
    assert_int_equal(store_arrays_read(file, 0, values, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "model/embed.weight is damaged"));
    assert_int_equal(store_arrays_read(file, 1, values, &err), STATUS_OK);
    store_arrays_close(file);
    seal_fini(&seal);
    buffer_fini(&whole);
}

/* Bytes that say bf16 to every tool: h5dump prints the numbers. */
static enum status give_halves(void *context, int64_t index, void *to, struct error *err)
{
    static const uint16_t values[] = {0x3F80, 0xC000, 0x3E80, 0x7F80}; /* 1, -2, 0.25, infinity */
    (void)context;
    (void)index;
    (void)err;
    memcpy(to, values, sizeof(values));
    return STATUS_OK;
}

static void test_tools_print_bf16(void **state)
{
    const struct store_array array = {"w", "test", STORE_BF16, 1, 4, true};
    char path[FILE_PATH_BYTES];
    char command[FILE_PATH_BYTES + 128];
    if (system("command -v h5dump >/dev/null") != 0) {
        print_message("h5dump is not installed: skipped\n");
        skip();
    }
    sample_path(*state, "a.h5", path);
    assert_int_equal(
        store_arrays_write(path, "weights", &array, 1, NULL, 0, give_halves, NULL, NULL),
        STATUS_OK);
    snprintf(command, sizeof(command), "h5dump -d /w '%s' | grep -q '1, -2, 0.25, inf'", path);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "h5ls -r '%s' > /dev/null", path);
    assert_int_equal(system(command), 0);
}

static void test_no_memory(void **state)
{
    char path[FILE_PATH_BYTES];
    struct store_file *file = NULL;
    struct error err = {0};
    int failures = 0;
    sample_path(*state, "a.h5", path);
    for (int64_t n = 1;; n++) {
        mem_fail_nth(n);
        if (write_one(path, samples, 3, &err) == STATUS_OK) {
            break;
        }
        failures++;
    }
    for (int64_t n = 1;; n++) {
        mem_fail_nth(n);
        if (store_arrays_open(path, NULL, &file, &err) == STATUS_OK) {
            break;
        }
        failures++;
    }
    mem_fail_nth(0);
    assert_true(failures > 10);
    store_arrays_close(file);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_round_trip),       IN_FOLDER(test_alignment),
        IN_FOLDER(test_what_cannot_be),   IN_FOLDER(test_giver_fails),
        IN_FOLDER(test_long_attribute),   IN_FOLDER(test_many_arrays),
        IN_FOLDER(test_cut_and_flipped),  IN_FOLDER(test_damaged_array_is_named),
        IN_FOLDER(test_tools_print_bf16), IN_FOLDER(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
