#include "hip.h"
__global__ void sum(long *x, short a, long b) { x[__builtin_amdgcn_workitem_id_x()] += a * b; }
