/* Copies between host and device, in the order of the operations and beside it; recordings; groups.
 */
#include "harness.h"

/* For tests in which neither dtype nor gaps take part. */
static bool first_variant(const struct bench *bench)
{
    return bench->dtype == DTYPE_F32 && bench->gap == 0;
}

static void *pinned(struct bench *bench, size_t bytes)
{
    struct error err = {0};
    void *memory = NULL;
    if (bench->ops->host_alloc(bench->device, bytes, "a test's host memory", &memory, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return memory;
}

static void check_floats(const char *what, const float *values, int64_t count, float expected)
{
    for (int64_t i = 0; i < count; i++) {
        if (!(values[i] == expected)) {
            fail_msg("%s[%lld] is %g, expected %g", what, (long long)i, (double)values[i],
                     (double)expected);
        }
    }
}

/* -- in order -- */

/* More than any ring of buffers holds, at odd places; the host's bytes change as soon as upload is
 * back. */
static void test_large_copies(struct bench *bench)
{
    static const size_t sizes[] = {1, 4 << 20, (4 << 20) + 1, (41 << 20) + 17, 3};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && first_variant(bench); i++) {
        const size_t bytes = sizes[i];
        unsigned char *host = bench_host(bench, (int64_t)bytes, 1);
        unsigned char *back = bench_host(bench, (int64_t)bytes, 1);
        unsigned char *device = bench_device(bench, bytes + 3);
        for (size_t j = 0; j < bytes; j++) {
            host[j] = (unsigned char)(j * 31 + j / 997 + i);
        }
        bench->ops->upload(bench->device, device + 3, host, bytes);
        memset(host, 0xEE, bytes);
        bench->ops->download(bench->device, back, device + 3, bytes);
        for (size_t j = 0; j < bytes; j++) {
            if (back[j] != (unsigned char)(j * 31 + j / 997 + i)) {
                fail_msg("byte %zu of %zu is %d", j, bytes, back[j]);
            }
        }
        bench_clear(bench);
    }
}

/* Many uploads without a pause, each from the same host memory. */
static void test_many_uploads(struct bench *bench)
{
    enum { UPLOADS = 4000, LARGEST = 2600 };
    int32_t *device = bench_device(bench, (size_t)UPLOADS * LARGEST * sizeof(*device));
    int32_t host[LARGEST];
    for (int upload = 0; upload < UPLOADS && first_variant(bench); upload++) {
        const int count = 1 + upload * 7919 % LARGEST;
        for (int i = 0; i < count; i++) {
            host[i] = upload + i;
        }
        bench->ops->upload(bench->device, device + (size_t)upload * LARGEST, host,
                           (size_t)count * sizeof(host[0]));
    }
    for (int upload = 0; upload < UPLOADS && first_variant(bench); upload += 97) {
        const int count = 1 + upload * 7919 % LARGEST;
        memset(host, 0, sizeof(host));
        bench->ops->download(bench->device, host, device + (size_t)upload * LARGEST,
                             (size_t)count * sizeof(host[0]));
        for (int i = 0; i < count; i++) {
            assert_int_equal(host[i], upload + i);
        }
    }
}

/* Copies see the operations before them, operations the copies before them. */
static void test_order(struct bench *bench)
{
    enum { COUNT = 5000 };
    struct matrix x = vector_make(bench, COUNT, 1.0);
    float *host = bench_host(bench, COUNT, sizeof(*host));
    for (int round = 1; round <= 20; round++) {
        for (int i = 0; i < COUNT; i++) {
            host[i] = (float)round;
        }
        bench->ops->upload(bench->device, x.tensor.data, host, COUNT * sizeof(*host));
        bench->ops->scale(bench->device, x.tensor, 3.0F);
        bench->ops->download(bench->device, host, x.tensor.data, COUNT * sizeof(*host));
        check_floats("x", host, COUNT, 3.0F * (float)round);
        bench->ops->fill(bench->device, x.tensor, -1.0F);
    }
    bench->ops->download(bench->device, host, x.tensor.data, COUNT * sizeof(*host));
    check_floats("x", host, COUNT, -1.0F);
}

/* -- beside -- */

enum { SIDE_COUNT = 100000 };
static const size_t SIDE_BYTES = SIDE_COUNT * sizeof(float);

/* A snapshot holds what was there when it was called for, whatever the operations do after the
 * fence. */
static void test_side_download(struct bench *bench)
{
    const struct ops *ops = bench->ops;
    struct matrix x = vector_make(bench, SIDE_COUNT, 1.0);
    float *first = pinned(bench, SIDE_BYTES);
    float *second = pinned(bench, SIDE_BYTES);
    ops->fill(bench->device, x.tensor, 1.0F);
    const int64_t first_ticket =
        ops->side_download(bench->device, first, x.tensor.data, SIDE_BYTES);
    ops->side_fence(bench->device);
    ops->fill(bench->device, x.tensor, 2.0F);
    const int64_t second_ticket =
        ops->side_download(bench->device, second, x.tensor.data, SIDE_BYTES);
    ops->side_fence(bench->device);
    ops->fill(bench->device, x.tensor, 3.0F);
    assert_true(second_ticket > first_ticket);
    ops->side_wait(bench->device, second_ticket);
    check_floats("the first snapshot", first, SIDE_COUNT, 1.0F);
    check_floats("the second snapshot", second, SIDE_COUNT, 2.0F);
    ops->side_wait(bench->device, first_ticket); /* already done; and again */
    ops->side_wait(bench->device, second_ticket);
    matrix_download(bench, &x);
    assert_true(x.value[0] == 3.0 && x.value[SIDE_COUNT - 1] == 3.0);
    ops->host_free(bench->device, first);
    ops->host_free(bench->device, second);
    ops->host_free(bench->device, NULL);
}

/* The next batch comes while operations run; after the fence they use it. */
static void test_side_upload(struct bench *bench)
{
    const struct ops *ops = bench->ops;
    struct matrix sum = vector_make(bench, SIDE_COUNT, 0.0);
    struct matrix batch[2] = {vector_make(bench, SIDE_COUNT, 1.0),
                              vector_make(bench, SIDE_COUNT, 1.0)};
    float *host[2] = {pinned(bench, SIDE_BYTES), pinned(bench, SIDE_BYTES)};
    int64_t ticket[2] = {0, 0};
    for (int step = 0; step < 9; step++) {
        const int which = step % 2;
        ops->side_wait(bench->device, ticket[which]); /* the host memory may change again */
        for (int64_t i = 0; i < SIDE_COUNT; i++) {
            host[which][i] = (float)(step + 1);
        }
        ticket[which] =
            ops->side_upload(bench->device, batch[which].tensor.data, host[which], SIDE_BYTES);
        ops->side_fence(bench->device);
        ops->add(bench->device, sum.tensor, batch[which].tensor);
    }
    matrix_download(bench, &sum);
    assert_true(sum.value[0] == 45.0 && sum.value[SIDE_COUNT - 1] == 45.0);
    ops->host_free(bench->device, host[0]);
    ops->host_free(bench->device, host[1]);
}

/* Tickets rise, also by the thousand without a wait; a mark waits for operations. */
static void test_tickets(struct bench *bench)
{
    const struct ops *ops = bench->ops;
    struct matrix x = vector_make(bench, 10, 1.0);
    float *host = pinned(bench, 10 * sizeof(*host));
    int64_t last = ops->side_mark(bench->device);
    const int64_t first = last;
    for (int i = 0; i < 5000 && first_variant(bench); i++) {
        const int64_t ticket = ops->side_mark(bench->device);
        assert_true(ticket > last);
        last = ticket;
    }
    ops->side_wait(bench->device, first + (last - first) / 2);
    ops->fill(bench->device, x.tensor, 4.0F);
    last = ops->side_download(bench->device, host, x.tensor.data, 10 * sizeof(*host));
    ops->side_wait(bench->device, ops->side_mark(bench->device)); /* and all before it */
    check_floats("x", host, 10, 4.0F);
    assert_true(ops->side_download(bench->device, NULL, x.tensor.data, 0) > last);
    ops->side_fence(bench->device);
    ops->side_fence(bench->device);
    ops->host_free(bench->device, host);
}

/* -- recordings -- */

/* x = 2 x + y; then z = a b into working memory of its own if a product is asked for. */
struct steps {
    struct bench *bench;
    struct tensor x;
    struct tensor y;
    const struct matrix *product; /* c, a, b, or NULL */
    void *download_to;            /* against the rules, or NULL */
    int calls;
};

static void enqueue_steps(void *context)
{
    struct steps *steps = context;
    const struct ops *ops = steps->bench->ops;
    struct device *device = steps->bench->device;
    steps->calls++;
    ops->scale(device, steps->x, 2.0F);
    if (steps->download_to != NULL) {
        ops->download(device, steps->download_to, steps->x.data, sizeof(float));
    }
    ops->add(device, steps->x, steps->y);
    if (steps->product != NULL) {
        ops->matmul(device, steps->product[0].tensor, steps->product[1].tensor, false,
                    steps->product[2].tensor, false, 1.0F, 0.0F);
    }
}

static void check_first(struct bench *bench, const struct matrix *x, double expected)
{
    matrix_download(bench, x);
    if (!(x->value[0] == expected)) {
        fail_msg("found %g, expected %g", x->value[0], expected);
    }
}

static void test_recording(struct bench *bench)
{
    struct matrix x = vector_make(bench, 1000, 0.0);
    struct matrix y = vector_make(bench, 1000, 0.0);
    const struct matrix product[3] = {matrix_make(bench, bench->dtype, 8, 16, 0.0),
                                      matrix_make(bench, bench->dtype, 8, 32, 1.0),
                                      matrix_make(bench, bench->dtype, 32, 16, 1.0)};
    struct steps steps = {.bench = bench, .x = x.tensor, .y = y.tensor, .product = product};
    struct recording *recording = NULL;
    double expected = 0.0;
    for (int run = 1; run <= 6; run++) {
        bench->ops->fill(bench->device, y.tensor, (float)run); /* outside, so that each differs */
        bench->ops->run_recorded(bench->device, &recording, enqueue_steps, &steps);
        expected = 2.0 * expected + run;
        check_first(bench, &x, expected);
    }
    matrix_download(bench, &product[0]);
    double sum = 0.0;
    for (int k = 0; k < 32; k++) {
        sum += product[1].value[k] * product[2].value[k * 16];
    }
    assert_true(fabs(product[0].value[0] - sum) <= dtype_tolerance(bench->dtype) * 16.0);
    assert_true(steps.calls >= 1 && steps.calls <= 6);
    if (strcmp(bench->ops->name, "cuda") == 0) {
        assert_int_equal(steps.calls, 2); /* directly, and to capture; the rest are replays */
    }
    bench->ops->recording_free(bench->device, recording);
    bench->ops->recording_free(bench->device, NULL);
}

/* Working memory that grows between two runs is not the recording's any more. */
static void test_recording_with_working_memory(struct bench *bench)
{
    enum { ROWS = 40, WIDTH = 24 };
    struct matrix table = matrix_make(bench, DTYPE_F32, 6, WIDTH, 0.0);
    struct matrix norm = vector_make(bench, 1, 0.0);
    struct recording *recording = NULL;
    struct steps steps = {.bench = bench, .x = table.tensor, .y = table.tensor};
    for (int run = 0; run < 5; run++) {
        /* all ones: x = 2 x + x */
        bench->ops->fill(bench->device, table.tensor, 1.0F);
        bench->ops->run_recorded(bench->device, &recording, enqueue_steps, &steps);
        check_first(bench, &table, 3.0 + 1.0);
        const int64_t count = 1000 << (2 * run);
        float *gradient = bench_device(bench, (size_t)count * sizeof(*gradient));
        bench->ops->fill(bench->device, tensor_matrix(gradient, DTYPE_F32, 1, count), 1.0F);
        const struct optimizer_slot slot = {.grad = gradient, .count = count};
        bench->ops->gradient_norm(bench->device, vector_data(&norm), &slot, 1);
        matrix_download(bench, &norm);
        assert_true(fabs(norm.value[0] - sqrt((double)count)) < 1e-3 * sqrt((double)count));
    }
    bench->ops->recording_free(bench->device, recording);
}

/* What breaks the rules of recordings still gives the right result, directly. */
static void test_recording_against_the_rules(struct bench *bench)
{
    struct matrix x = vector_make(bench, 100, 0.0);
    struct matrix y = vector_make(bench, 100, 0.0);
    float seen = 0.0F;
    char text[256];
    struct steps steps = {.bench = bench, .x = x.tensor, .y = y.tensor, .download_to = &seen};
    struct recording *recording = NULL;
    bench->ops->fill(bench->device, y.tensor, 1.0F);
    double expected = 0.0;
    for (int run = 0; run < 4; run++) {
        bench->ops->run_recorded(bench->device, &recording, enqueue_steps, &steps);
        assert_true((double)seen == 2.0 * expected);
        expected = 2.0 * expected + 1.0;
        check_first(bench, &x, expected);
    }
    assert_int_equal(bench->ops->check(bench->device, NULL), STATUS_OK);
    bench->ops->describe(bench->device, text, sizeof(text));
    assert_true(strcmp(bench->ops->name, "cuda") != 0 || strstr(text, "recording") != NULL);
    bench->ops->recording_free(bench->device, recording);
}

struct gather {
    struct bench *bench;
    struct tensor to;
    struct tensor table;
    const int32_t *index;
};

static void enqueue_gather(void *context)
{
    const struct gather *gather = context;
    gather->bench->ops->gather_rows(gather->bench->device, gather->to, gather->table,
                                    gather->index);
}

/* A recording fails like its operations, each time, and goes on when the input is right again. */
static void test_recording_that_fails(struct bench *bench)
{
    struct matrix table = matrix_make(bench, bench->dtype, 4, 5, 1.0);
    struct matrix to = matrix_make(bench, bench->dtype, 1, 5, 0.0);
    const int32_t good = 2;
    const int32_t bad = 4;
    int32_t *index = ints_upload(bench, &good, 1);
    struct gather gather = {bench, to.tensor, table.tensor, index};
    struct recording *recording = NULL;
    struct error err = {0};
    for (int run = 0; run < 6; run++) {
        const bool fails = run % 2 == 1;
        bench->ops->upload(bench->device, index, fails ? &bad : &good, sizeof(*index));
        bench->ops->run_recorded(bench->device, &recording, enqueue_gather, &gather);
        assert_int_equal(bench->ops->check(bench->device, &err), fails ? STATUS_RANGE : STATUS_OK);
        if (!fails) {
            matrix_check(bench, "to", &to, table.value + 10, 0.0, 0.0);
        }
    }
    bench->ops->recording_free(bench->device, recording);
}

/* -- groups -- */

/* A group of one rank, where the backend and the machine have groups. */
static void test_group(struct bench *bench)
{
    unsigned char id[DEVICE_GROUP_ID_BYTES];
    struct error err = {0};
    const struct ops *ops = bench->ops;
    assert_int_equal(ops->group_id == NULL, ops->group_join == NULL);
    if (ops->group_id == NULL) {
        return;
    }
    struct matrix x = vector_make(bench, 1000, 1.0);
    double *before = values_copy(bench, &x);
    enum status status = ops->group_id(bench->device, id, &err);
    if (status == STATUS_OK) {
        status = ops->group_join(bench->device, id, 0, 1, &err);
    }
    if (status == STATUS_OK) {
        const int64_t ticket = ops->side_sum(bench->device, vector_data(&x), 1000);
        ops->side_wait(bench->device, ticket);
        matrix_check(bench, "the sum of one", &x, before, 0.0, 0.0);
    } else {
        assert_int_equal(status, STATUS_UNSUPPORTED);
        assert_true(strlen(err.message) > 20);
        (void)ops->side_sum(bench->device, vector_data(&x), 1000);
        assert_int_equal(ops->check(bench->device, &err), STATUS_INTERNAL);
        assert_non_null(strstr(err.message, "group"));
    }
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"large copies", test_large_copies},
        {"many uploads", test_many_uploads},
        {"order of copies", test_order},
        {"side downloads", test_side_download},
        {"side uploads", test_side_upload},
        {"tickets", test_tickets},
        {"a recording", test_recording},
        {"a recording and working memory", test_recording_with_working_memory},
        {"a recording against the rules", test_recording_against_the_rules},
        {"a recording that fails", test_recording_that_fails},
        {"a group", test_group},
    };
    return kernel_tests_run("side", tests, sizeof(tests) / sizeof(tests[0]));
}
