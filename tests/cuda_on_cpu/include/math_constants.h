/* CUDA's constants. */
#ifndef ON_CPU_MATH_CONSTANTS_H
#define ON_CPU_MATH_CONSTANTS_H

#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_MIN_DENORM_F 0x1p-149F
#define CUDART_MAX_NORMAL_F 0x1.fffffep127F
#define CUDART_NEG_ZERO_F (-0.0F)
#define CUDART_ZERO_F 0.0F
#define CUDART_ONE_F 1.0F
#define CUDART_SQRT_HALF_F 0.707106781F
#define CUDART_SQRT_TWO_F 1.414213562F
#define CUDART_LOG2_10_F 3.321928095F
#define CUDART_L2E_F 1.442695041F
#define CUDART_L2T_F 3.321928094F
#define CUDART_LN2_F 0.693147181F
#define CUDART_LNT_F 2.302585093F
#define CUDART_PI_F 3.141592654F
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")

#endif
