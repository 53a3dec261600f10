/* Operations that are recorded once and then started together, as a CUDA graph: in generation, the
 * hundreds of small kernels of a token would otherwise wait for the host.
 *
 * A recording's first run is direct: working memory grows, products get their plans, kernels are
 * loaded. The second one is captured from the stream, made a graph and started; later ones start
 * the graph. A graph holds the addresses of the working memory, so it is captured anew when that
 * has moved since.
 *
 * If an operation cannot be captured, or the graph not made, the recording runs directly from then
 * on: slower, with the same results. The device counts it, and describe tells. A failure of the
 * direct run is one like any other. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

enum stage { STAGE_DIRECT_ONCE, STAGE_GRAPH, STAGE_DIRECT_ALWAYS };

struct recording {
    enum stage stage;
    cudaGraphExec_t graph; /* NULL until captured */
    const void *scratch;   /* the device's working memory when it was */
};

static struct recording *recording_create(struct device *device)
{
    struct recording *recording =
        static_cast<struct recording *>(mem_calloc(1, sizeof(*recording)));
    if (recording == NULL) {
        CUDA_FAIL(device, STATUS_NO_MEMORY, "no memory for a recording");
    }
    return recording;
}

/* Waits for what is under way: the graph may be part of it. */
static void graph_destroy(struct device *device, struct recording *recording)
{
    if (recording->graph != NULL) {
        (void)cuda_went_well(device, cudaStreamSynchronize(cuda_of(device)->stream),
                             "operations on the GPU");
        (void)cudaGraphExecDestroy(recording->graph);
        recording->graph = NULL;
    }
}

/* What `enqueue` calls, as a graph that is not yet started. A failure that it records belongs to
 * the attempt, not to the device: the capture is given up. Returns whether there is a graph. */
static bool capture(struct device *device, struct recording *recording,
                    void (*enqueue)(void *context), void *context)
{
    struct cuda_device *cuda = cuda_of(device);
    cudaGraph_t graph = NULL;
    if (cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    cuda->recording = true;
    enqueue(context);
    cuda->recording = false;
    cudaError_t result = cudaStreamEndCapture(cuda->stream, &graph);
    if (result == cudaSuccess && !cuda_failed(device)) {
        result = cudaGraphInstantiate(&recording->graph, graph, 0);
    }
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    (void)cudaGetLastError();
    if (cuda_failed(device) || result != cudaSuccess) {
        memset(&cuda->failure, 0, sizeof(cuda->failure));
        recording->graph = NULL;
    }
    recording->scratch = cuda->scratch;
    return recording->graph != NULL;
}

static void run_graph(struct device *device, struct recording *recording,
                      void (*enqueue)(void *context), void *context)
{
    struct cuda_device *cuda = cuda_of(device);
    if (recording->scratch != cuda->scratch) {
        graph_destroy(device, recording);
    }
    if (recording->graph == NULL && !capture(device, recording, enqueue, context)) {
        recording->stage = STAGE_DIRECT_ALWAYS;
        cuda->recordings_lost++;
        enqueue(context);
        return;
    }
    (void)cuda_went_well(device, cudaGraphLaunch(recording->graph, cuda->stream),
                         "starting recorded operations");
}

void cuda_run_recorded(struct device *device, struct recording **recording,
                       void (*enqueue)(void *context), void *context)
{
    if (cuda_failed(device) || !cuda_not_recording(device, "run_recorded")) {
        return;
    }
    if (*recording == NULL) {
        *recording = recording_create(device);
        if (*recording == NULL) {
            return;
        }
    }
    if ((*recording)->stage == STAGE_GRAPH) {
        run_graph(device, *recording, enqueue, context);
        return;
    }
    enqueue(context);
    if ((*recording)->stage == STAGE_DIRECT_ONCE && !cuda_failed(device)) {
        (*recording)->stage = STAGE_GRAPH;
    }
}

void cuda_recording_free(struct device *device, struct recording *recording)
{
    if (recording != NULL) {
        graph_destroy(device, recording);
        free(recording);
    }
}
