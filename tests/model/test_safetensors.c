/* The file format: reading of what others wrote, round trips, and headers made to do harm. */
#include "base/buffer.h"
#include "support.h"

static char folder[FILE_PATH_BYTES];

static void path_of(const char *name, char out[FILE_PATH_BYTES])
{
    ASSERT_OK(file_join(folder, name, out, err));
}

/* A file of a header, with its length in front unless `length` is another, and data. */
static void write_raw(const char *name, const char *header, int64_t length, size_t data_bytes)
{
    struct buffer text;
    char path[FILE_PATH_BYTES];
    char zeros[256] = {0};
    uint64_t count = length >= 0 ? (uint64_t)length : strlen(header);
    buffer_init(&text, 1 << 20);
    for (int i = 0; i < 8; i++) {
        buffer_append_char(&text, (char)(count >> (8 * i)));
    }
    buffer_append_text(&text, header);
    buffer_append(&text, zeros, data_bytes);
    path_of(name, path);
    ASSERT_OK(file_write(path, text.data, text.len_bytes, err));
    buffer_fini(&text);
}

static void test_golden(void **state)
{
    (void)state;
    struct safetensors *file = NULL;
    ASSERT_OK(safetensors_open_folder(GOLDEN "llama_tied", &file, err)); /* two shards */
    assert_int_equal(safetensors_count(file), 20);
    const struct safetensors_entry *entry = safetensors_find(file, "model.embed_tokens.weight");
    assert_non_null(entry);
    assert_int_equal(entry->dtype, SAFETENSORS_BF16);
    assert_int_equal(entry->dimensions, 2);
    assert_int_equal(entry->shape[0], 40);
    assert_int_equal(entry->shape[1], 16);
    assert_int_equal(entry->len_bytes, 40 * 16 * 2);
    assert_null(safetensors_find(file, "lm_head.weight"));
    for (int64_t i = 1; i < safetensors_count(file); i++) {
        assert_true(strcmp(safetensors_at(file, i - 1)->name, safetensors_at(file, i)->name) < 0);
    }
    safetensors_close(file);
    safetensors_close(NULL);
}

static enum status fill_tensor(void *context, int64_t index, void *to, struct error *err)
{
    const struct safetensors_entry *entries = context;
    size_t count = safetensors_dtype_bytes(entries[index].dtype);
    for (int i = 0; i < entries[index].dimensions; i++) {
        count *= (size_t)entries[index].shape[i];
    }
    if (index == 3) {
        return FAIL(err, STATUS_DEVICE, "made to fail");
    }
    memset(to, (int)('a' + index), count);
    return STATUS_OK;
}

static void test_round_trip(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    char aside[FILE_PATH_BYTES];
    struct safetensors *file = NULL;
    struct safetensors_entry entries[4] = {
        {.name = "z \"quoted\"\n\\", .dtype = SAFETENSORS_F32, .dimensions = 2, .shape = {3, 5}},
        {.name = "a", .dtype = SAFETENSORS_BF16, .dimensions = 1, .shape = {7}},
        {.name = "m", .dtype = SAFETENSORS_I32, .dimensions = 3, .shape = {2, 0, 4}},
        {.name = "fails", .dtype = SAFETENSORS_U8, .dimensions = 0},
    };
    path_of("round.safetensors", path);
    ASSERT_OK(safetensors_write(path, entries, 3, fill_tensor, entries, err));
    ASSERT_OK(safetensors_open_file(path, &file, err));
    assert_int_equal(safetensors_count(file), 3);
    const struct safetensors_entry *entry = safetensors_find(file, entries[0].name);
    assert_non_null(entry);
    assert_int_equal(entry->len_bytes, 60);
    assert_int_equal(((const char *)entry->data)[59], 'a');
    entry = safetensors_find(file, "a");
    assert_int_equal(entry->len_bytes, 14);
    assert_int_equal(((const char *)entry->data)[0], 'b');
    assert_int_equal(safetensors_find(file, "m")->len_bytes, 0);
    safetensors_close(file);

    /* A failure on the way leaves the old file and nothing aside. */
    ASSERT_FAILS(safetensors_write(path, entries, 4, fill_tensor, entries, err), STATUS_DEVICE,
                 "made to fail");
    ASSERT_OK(file_aside(path, aside, err));
    assert_false(file_exists(aside));
    ASSERT_OK(safetensors_open_file(path, &file, err));
    safetensors_close(file);
    setenv("TREX_FAULT", "model.safetensors.write_tensor:1=enospc", 1);
    ASSERT_FAILS(safetensors_write(path, entries, 2, fill_tensor, entries, err), STATUS_NO_SPACE,
                 "TREX_FAULT");
    unsetenv("TREX_FAULT");
    assert_false(file_exists(aside));
    ASSERT_FAILS(safetensors_write("/nowhere/x", entries, 2, fill_tensor, entries, err),
                 STATUS_NOT_FOUND, "/nowhere/x");
}

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end   \
    "]}"

static const struct {
    const char *header;
    int64_t length; /* -1: of the header */
    size_t data_bytes;
    const char *message;
} hostile[] = {
    {"{}", 1000, 0, "header of 1000 bytes"},
    {"{}", INT64_MAX, 0, "header of 9223372036854775807 bytes"},
    {"{}", -1, 4, "end at byte 0 of 4"},
    {"[]", -1, 0, "not a JSON object"},
    {"{\"a\":", -1, 0, "not valid JSON"},
    {"\xff\xfe", -1, 0, "UTF-8"},
    {"{\"a\":7}", -1, 0, "unknown dtype"},
    {"{" TENSOR("a", "F99", "[1]", "0", "4") "}", -1, 4, "unknown dtype \"F99\""},
    {"{" TENSOR("a", "F32", "7", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[-1]", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[1.5]", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[1e300]", "0", "4") "}", -1, 4, "\"shape\""},
    {"{" TENSOR("a", "F32", "[1]", "0", "8") "}", -1, 4, "bytes 0 to 8 of 4"},
    {"{" TENSOR("a", "F32", "[1]", "4", "0") "}", -1, 4, "bytes 4 to 0"},
    {"{" TENSOR("a", "F32", "[1]", "-4", "0") "}", -1, 4, "data_offsets"},
    {"{" TENSOR("a", "F32", "[1]", "0", "1e30") "}", -1, 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, "data_offsets"},
    {"{" TENSOR("a", "F32", "[2]", "0", "4") "}", -1, 4,
     "has 4 bytes, its shape [2] of F32 needs 8"},
    {"{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[1]", "0", "4") "}", -1, 4,
     "overlaps"},
    {"{" TENSOR("a", "F32", "[2]", "0", "8") "," TENSOR("b", "F32", "[2]", "4", "12") "}", -1, 12,
     "overlaps"},
    {"{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[1]", "8", "12") "}", -1, 12,
     "gap"},
    {"{" TENSOR("a", "F32", "[1]", "0", "4") "}", -1, 8, "end at byte 4 of 8"},
    {"{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("a", "F32", "[1]", "4", "8") "}", -1, 8,
     "twice"},
};

static void test_hostile(void **state)
{
    (void)state;
    struct safetensors *file = NULL;
    char path[FILE_PATH_BYTES];
    path_of("hostile.safetensors", path);
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        write_raw("hostile.safetensors", hostile[i].header, hostile[i].length,
                  hostile[i].data_bytes);
        ASSERT_FAILS(safetensors_open_file(path, &file, err), STATUS_FORMAT, hostile[i].message);
        ASSERT_FAILS(safetensors_open_file(path, &file, err), STATUS_FORMAT, "hostile.safetensors");
    }
    struct buffer header;
    buffer_init(&header, 4096);
    buffer_append_text(&header, "{\"");
    for (int i = 0; i < 300; i++) {
        buffer_append_char(&header, 'n');
    }
    buffer_append_text(&header, "\":{}}");
    write_raw("hostile.safetensors", buffer_text(&header), -1, 0);
    ASSERT_FAILS(safetensors_open_file(path, &file, err), STATUS_FORMAT, "longer than 255");
    buffer_fini(&header);
    ASSERT_OK(file_write(path, "short", 5, err));
    ASSERT_FAILS(safetensors_open_file(path, &file, err), STATUS_FORMAT, "5 bytes are too few");
    ASSERT_OK(file_write(path, "", 0, err));
    ASSERT_FAILS(safetensors_open_file(path, &file, err), STATUS_FORMAT, "0 bytes");
    ASSERT_FAILS(safetensors_open_file(folder, &file, err), STATUS_FORMAT, "regular");
    ASSERT_FAILS(safetensors_open_file("/nowhere", &file, err), STATUS_NOT_FOUND, "/nowhere");
}

/* A good file cut at every length, and with every byte of its header changed: an error or a file,
 * never a crash. */
static void test_cut_and_changed(void **state)
{
    (void)state;
    struct buffer text;
    char path[FILE_PATH_BYTES];
    struct safetensors *file = NULL;
    struct error error;
    write_raw("good.safetensors",
              "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR(
                  "a", "F32", "[1,2]", "0", "8") "," TENSOR("b", "BF16", "[2]", "8", "12") "}",
              -1, 12);
    path_of("good.safetensors", path);
    buffer_init(&text, 4096);
    ASSERT_OK(file_read(path, &text, err));
    ASSERT_OK(safetensors_open_file(path, &file, err));
    safetensors_close(file);
    path_of("hostile.safetensors", path);
    for (size_t length = 0; length < text.len_bytes; length++) {
        ASSERT_OK(file_write(path, text.data, length, err));
        assert_int_equal(safetensors_open_file(path, &file, &error), STATUS_FORMAT);
    }
    for (size_t at = 0; at < text.len_bytes - 12; at++) {
        for (int bit = 0; bit < 8; bit += 3) {
            text.data[at] = (char)(text.data[at] ^ 1 << bit);
            ASSERT_OK(file_write(path, text.data, text.len_bytes, err));
            if (safetensors_open_file(path, &file, &error) == STATUS_OK) {
                safetensors_close(file);
            }
            text.data[at] = (char)(text.data[at] ^ 1 << bit);
        }
    }
    buffer_fini(&text);
}

static void write_index(const char *text)
{
    char path[FILE_PATH_BYTES];
    path_of("model.safetensors.index.json", path);
    ASSERT_OK(file_write(path, text, strlen(text), err));
}

static void test_shards(void **state)
{
    (void)state;
    struct safetensors *file = NULL;
    ASSERT_FAILS(safetensors_open_folder(folder, &file, err), STATUS_NOT_FOUND, "neither");
    write_raw("s1.safetensors", "{" TENSOR("a", "F32", "[1]", "0", "4") "}", -1, 4);
    write_raw("s2.safetensors", "{" TENSOR("b", "F32", "[1]", "0", "4") "}", -1, 4);
    write_raw("s3.safetensors", "{" TENSOR("a", "F32", "[1]", "0", "4") "}", -1, 4);
    write_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}");
    ASSERT_OK(safetensors_open_folder(folder, &file, err));
    assert_int_equal(safetensors_count(file), 2);
    assert_non_null(strstr(safetensors_find(file, "b")->file, "s2.safetensors"));
    safetensors_close(file);
    const struct {
        const char *index;
        enum status status;
        const char *message;
    } bad[] = {
        {"[]", STATUS_FORMAT, "weight_map"},
        {"{}", STATUS_FORMAT, "weight_map"},
        {"{\"weight_map\":{\"a\":\"../s1.safetensors\"}}", STATUS_FORMAT, "same folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", STATUS_FORMAT, "same folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", STATUS_FORMAT, "same folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", STATUS_FORMAT, "same folder"},
        {"{\"weight_map\":{\"a\":7}}", STATUS_FORMAT, "same folder"},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", STATUS_NOT_FOUND, "absent.safetensors"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}", STATUS_FORMAT,
         "tensor c is not in its shard"},
        {"{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}}", STATUS_FORMAT,
         "is not in its shard"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}", STATUS_FORMAT,
         "twice"},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s2.safetensors\"}}", STATUS_FORMAT,
         "shard"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_index(bad[i].index);
        ASSERT_FAILS(safetensors_open_folder(folder, &file, err), bad[i].status, bad[i].message);
    }
    write_raw("s2.safetensors",
              "{" TENSOR("b", "F32", "[1]", "0", "4") "," TENSOR("c", "F32", "[1]", "4", "8") "}",
              -1, 8);
    write_index("{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}");
    ASSERT_FAILS(safetensors_open_folder(folder, &file, err), STATUS_FORMAT, "lists 2 tensors");
}

static void test_no_memory(void **state)
{
    (void)state;
    int64_t failures = 0;
    for (int64_t nth = 1;; nth++) {
        struct safetensors *file = NULL;
        struct error error;
        mem_fail_nth(nth);
        enum status status = safetensors_open_folder(GOLDEN "llama_tied", &file, &error);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            safetensors_close(file);
            break;
        }
        assert_null(file);
        failures++;
    }
    assert_true(failures >= 6);
}

/* Every f16: exact, against the definition. */
static void test_numbers(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = number_from_f16((uint16_t)bits);
        int exponent = (int)(bits >> 10 & 0x1F);
        double mantissa = (double)(bits & 0x3FF);
        double expected =
            exponent == 0 ? mantissa * 0x1p-24 : (1024.0 + mantissa) * pow(2.0, exponent - 25);
        if (exponent == 31) {
            assert_true(mantissa > 0.0 ? isnan(value) : isinf(value));
        } else {
            assert_true((double)value == (bits >> 15 ? -expected : expected));
        }
        float back = number_from_bf16((uint16_t)bits);
        if (!isnan(back)) {
            assert_int_equal(number_to_bf16(back), bits);
        } else {
            assert_true(isnan(number_from_bf16(number_to_bf16(back))));
        }
    }
    assert_int_equal(number_to_bf16(1.00390625f), 0x3F80); /* half way: to even */
    assert_int_equal(number_to_bf16(1.01171875f), 0x3F82);
    assert_int_equal(number_to_bf16(1.00391f), 0x3F81);
}

int main(void)
{
    char name[] = "/tmp/trex-test-safetensors-XXXXXX";
    if (mkdtemp(name) == NULL) {
        return 1;
    }
    snprintf(folder, sizeof(folder), "%s", name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_cut_and_changed),
        cmocka_unit_test(test_shards),  cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_numbers),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    static const char *const names[] = {"round.safetensors",
                                        "hostile.safetensors",
                                        "good.safetensors",
                                        "s1.safetensors",
                                        "s2.safetensors",
                                        "s3.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[FILE_PATH_BYTES];
        snprintf(path, sizeof(path), "%s/%s", name, names[i]);
        unlink(path);
    }
    rmdir(name);
    return failed;
}
