/* What the guard asks of libcuda.so.1, without hardware: each thread has a current context, 0 for none. The context of
 * device n is the number n + 1. */

enum { SUCCESS = 0, INVALID_CONTEXT = 201 };

static _Thread_local void *current;

int cuCtxGetCurrent(void **context) {
    *context = current;
    return SUCCESS;
}

int cuCtxSetCurrent(void *context) {
    current = context;
    return SUCCESS;
}

int cuCtxGetDevice(int *device) {
    if (!current) return INVALID_CONTEXT;
    *device = (int)((long)current - 1);
    return SUCCESS;
}

/* Not of CUDA: how a test moves its thread. */
int move_to(int device) {
    current = (void *)(long)(device + 1);
    return SUCCESS;
}
