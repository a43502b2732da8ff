/* The kernels that process many bytes at a time, written once for all instruction sets but AVX-512
 * (avx512.h).
 *
 * sets.h includes this file once per instruction set. FASTWS_ISA is its name, and FASTWS_TARGET is
 * the attribute of its functions. The first part of this file maps operations to instructions. The
 * second part knows masks and UTF-8, but no instructions.
 *
 * A kernel reads and writes nothing outside its buffers.
 */
#define FASTWS_JOIN_(name, isa) fastws_##name##_##isa
#define FASTWS_JOIN(name, isa) FASTWS_JOIN_(name, isa)
#define FN(name) FASTWS_JOIN(name, FASTWS_ISA)
#define OP static inline FASTWS_TARGET __attribute__((always_inline))

/* Operations -------------------------------------------------------------------------
 *
 * A NARROW vector has 16 bytes; a WIDE one has as many as a register. */

#if defined(FASTWS_HAVE_X86)

#define NARROW __m128i

OP NARROW FN(load)(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
OP void FN(store)(void *p, NARROW v) { _mm_storeu_si128((__m128i *)p, v); }
OP void FN(store_half)(void *p, NARROW v) { _mm_storel_epi64((__m128i *)p, v); }
OP NARROW FN(shuffle)(NARROW v, NARROW from) { return _mm_shuffle_epi8(v, from); }
OP NARROW FN(fill8)(uint8_t x) { return _mm_set1_epi8((char)x); }
OP NARROW FN(and)(NARROW a, NARROW b) { return _mm_and_si128(a, b); }
OP NARROW FN(or)(NARROW a, NARROW b) { return _mm_or_si128(a, b); }
OP NARROW FN(xor)(NARROW a, NARROW b) { return _mm_xor_si128(a, b); }
OP NARROW FN(equal)(NARROW a, NARROW b) { return _mm_cmpeq_epi8(a, b); }
OP NARROW FN(fill32)(uint32_t x) { return _mm_set1_epi32((int)x); }
#define LEFT16(v, bits) _mm_slli_epi16(v, bits)
#define RIGHT32(v, bits) _mm_srli_epi32(v, bits)
#define LEFT32(v, bits) _mm_slli_epi32(v, bits)
/* Widen the low or high half of the elements to twice their width. */
OP NARROW FN(low16)(NARROW v) { return _mm_unpacklo_epi8(v, _mm_setzero_si128()); }
OP NARROW FN(high16)(NARROW v) { return _mm_unpackhi_epi8(v, _mm_setzero_si128()); }
OP NARROW FN(low32)(NARROW v) { return _mm_unpacklo_epi16(v, _mm_setzero_si128()); }
OP NARROW FN(high32)(NARROW v) { return _mm_unpackhi_epi16(v, _mm_setzero_si128()); }
/* Narrow the 32-bit elements of two vectors to half their width. The values must fit. */
OP NARROW FN(halve32)(NARROW a, NARROW b) { return _mm_packus_epi32(a, b); }

#if FASTWS_WIDTH == 32

#define WIDE __m256i
OP WIDE FN(wload)(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
OP void FN(wstore)(uint8_t *p, WIDE v) { _mm256_storeu_si256((__m256i *)p, v); }
OP WIDE FN(wfill8)(uint8_t x) { return _mm256_set1_epi8((char)x); }
OP WIDE FN(wfill32)(uint32_t x) { return _mm256_set1_epi32((int)x); }
OP WIDE FN(wtable)(const uint8_t *p) { return _mm256_broadcastsi128_si256(FN(load)(p)); }
OP WIDE FN(wlookup)(WIDE table, WIDE from) { return _mm256_shuffle_epi8(table, from); }
OP WIDE FN(wand)(WIDE a, WIDE b) { return _mm256_and_si256(a, b); }
OP WIDE FN(wor)(WIDE a, WIDE b) { return _mm256_or_si256(a, b); }
OP WIDE FN(wxor)(WIDE a, WIDE b) { return _mm256_xor_si256(a, b); }
OP WIDE FN(wmax)(WIDE a, WIDE b) { return _mm256_max_epu8(a, b); }
OP WIDE FN(wless)(WIDE a, WIDE b) { return _mm256_subs_epu8(a, b); }
OP WIDE FN(whigh)(WIDE v) { return FN(wand)(_mm256_srli_epi16(v, 4), FN(wfill8)(0x0F)); }
OP int FN(wany)(WIDE v) { return !_mm256_testz_si256(v, v); }
OP int FN(wascii)(WIDE v) { return !_mm256_movemask_epi8(v); }
#define WRIGHT32(v, bits) _mm256_srli_epi32(v, bits)
/* Load 24 or 12 bytes, and some after them, in the arrangement that a table lookup needs. */
OP WIDE
FN(wload12)(const uint8_t *p)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(FN(load)(p)), FN(load)(p + 12), 1);
}
/* Narrow the 32-bit elements of two vectors to half their width, and store them. */
OP void
FN(store_halved)(uint16_t *out, WIDE a, WIDE b)
{
    __m256i v = _mm256_packus_epi32(a, b);
    _mm256_storeu_si256((__m256i *)out, _mm256_permute4x64_epi64(v, 0xD8));
}
/* Widen eight 16-bit elements to 32 bits, and store them. */
OP void
FN(store_wider)(uint32_t *out, NARROW v)
{
    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu16_epi32(v));
}
#define PREVIOUS(v, before, bytes) \
    _mm256_alignr_epi8(v, _mm256_permute2x128_si256(before, v, 0x21), 16 - (bytes))
/* Return a bit for each byte: 1 if it begins a character. */
OP uint64_t
FN(wstarts)(WIDE v)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(v, FN(wfill8)(0xBF)));
}

#else

#define WIDE __m128i
OP WIDE FN(wload)(const uint8_t *p) { return FN(load)(p); }
OP void FN(wstore)(uint8_t *p, WIDE v) { FN(store)(p, v); }
OP WIDE FN(wfill8)(uint8_t x) { return FN(fill8)(x); }
OP WIDE FN(wfill32)(uint32_t x) { return FN(fill32)(x); }
OP WIDE FN(wtable)(const uint8_t *p) { return FN(load)(p); }
OP WIDE FN(wlookup)(WIDE table, WIDE from) { return FN(shuffle)(table, from); }
OP WIDE FN(wand)(WIDE a, WIDE b) { return FN(and)(a, b); }
OP WIDE FN(wor)(WIDE a, WIDE b) { return FN(or)(a, b); }
OP WIDE FN(wxor)(WIDE a, WIDE b) { return FN(xor)(a, b); }
OP WIDE FN(wmax)(WIDE a, WIDE b) { return _mm_max_epu8(a, b); }
OP WIDE FN(wless)(WIDE a, WIDE b) { return _mm_subs_epu8(a, b); }
OP WIDE FN(whigh)(WIDE v) { return FN(and)(_mm_srli_epi16(v, 4), FN(fill8)(0x0F)); }
OP int FN(wany)(WIDE v) { return !_mm_testz_si128(v, v); }
OP int FN(wascii)(WIDE v) { return !_mm_movemask_epi8(v); }
#define WRIGHT32(v, bits) RIGHT32(v, bits)
#define PREVIOUS(v, before, bytes) _mm_alignr_epi8(v, before, 16 - (bytes))
OP uint64_t
FN(wstarts)(WIDE v)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi8(v, FN(fill8)(0xBF)));
}

#endif
#elif defined(FASTWS_HAVE_NEON)

#define NARROW uint8x16_t
#define WIDE uint8x16_t

OP NARROW FN(load)(const uint8_t *p) { return vld1q_u8(p); }
OP void FN(store)(void *p, NARROW v) { vst1q_u8(p, v); }
OP void FN(store_half)(void *p, NARROW v) { vst1_u8(p, vget_low_u8(v)); }
OP NARROW FN(shuffle)(NARROW v, NARROW from) { return vqtbl1q_u8(v, from); }
OP NARROW FN(fill8)(uint8_t x) { return vdupq_n_u8(x); }
OP NARROW FN(and)(NARROW a, NARROW b) { return vandq_u8(a, b); }
OP NARROW FN(or)(NARROW a, NARROW b) { return vorrq_u8(a, b); }
OP NARROW FN(xor)(NARROW a, NARROW b) { return veorq_u8(a, b); }
OP NARROW FN(equal)(NARROW a, NARROW b) { return vceqq_u8(a, b); }
OP NARROW FN(fill32)(uint32_t x) { return vreinterpretq_u8_u32(vdupq_n_u32(x)); }
#define LEFT16(v, bits) vreinterpretq_u8_u16(vshlq_n_u16(vreinterpretq_u16_u8(v), bits))
#define RIGHT32(v, bits) vreinterpretq_u8_u32(vshrq_n_u32(vreinterpretq_u32_u8(v), bits))
#define LEFT32(v, bits) vreinterpretq_u8_u32(vshlq_n_u32(vreinterpretq_u32_u8(v), bits))
OP NARROW FN(low16)(NARROW v) { return vzip1q_u8(v, vdupq_n_u8(0)); }
OP NARROW FN(high16)(NARROW v) { return vzip2q_u8(v, vdupq_n_u8(0)); }
OP NARROW
FN(low32)(NARROW v)
{
    return vreinterpretq_u8_u32(vmovl_u16(vget_low_u16(vreinterpretq_u16_u8(v))));
}
OP NARROW
FN(high32)(NARROW v)
{
    return vreinterpretq_u8_u32(vmovl_high_u16(vreinterpretq_u16_u8(v)));
}
OP NARROW
FN(halve32)(NARROW a, NARROW b)
{
    return vreinterpretq_u8_u16(vuzp1q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}
/* Return one bit of each byte. All bits of a byte must be equal. */
OP uint32_t
FN(bits)(NARROW truth)
{
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t set = vandq_u8(truth, vld1q_u8(weights));
    return (uint32_t)vaddv_u8(vget_low_u8(set)) | (uint32_t)vaddv_u8(vget_high_u8(set)) << 8;
}

OP WIDE FN(wload)(const uint8_t *p) { return vld1q_u8(p); }
OP void FN(wstore)(uint8_t *p, WIDE v) { vst1q_u8(p, v); }
OP WIDE FN(wfill8)(uint8_t x) { return vdupq_n_u8(x); }
OP WIDE FN(wfill32)(uint32_t x) { return FN(fill32)(x); }
OP WIDE FN(wtable)(const uint8_t *p) { return vld1q_u8(p); }
OP WIDE FN(wlookup)(WIDE table, WIDE from) { return vqtbl1q_u8(table, from); }
OP WIDE FN(wand)(WIDE a, WIDE b) { return vandq_u8(a, b); }
OP WIDE FN(wor)(WIDE a, WIDE b) { return vorrq_u8(a, b); }
OP WIDE FN(wxor)(WIDE a, WIDE b) { return veorq_u8(a, b); }
OP WIDE FN(wmax)(WIDE a, WIDE b) { return vmaxq_u8(a, b); }
OP WIDE FN(wless)(WIDE a, WIDE b) { return vqsubq_u8(a, b); }
OP WIDE FN(whigh)(WIDE v) { return vshrq_n_u8(v, 4); }
OP int FN(wany)(WIDE v) { return vmaxvq_u8(v) != 0; }
OP int FN(wascii)(WIDE v) { return vmaxvq_u8(v) < 0x80; }
#define WRIGHT32(v, bits) RIGHT32(v, bits)
#define PREVIOUS(v, before, bytes) vextq_u8(before, v, 16 - (bytes))
OP uint64_t
FN(wstarts)(WIDE v)
{
    return FN(bits)(vcgtq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8((int8_t)0xBF)));
}

#endif

#if FASTWS_WIDTH == 16
OP WIDE FN(wload12)(const uint8_t *p) { return FN(load)(p); }
OP void FN(store_halved)(uint16_t *out, WIDE a, WIDE b) { FN(store)(out, FN(halve32)(a, b)); }
OP void
FN(store_wider)(uint32_t *out, NARROW v)
{
    FN(store)(out, FN(low32)(v));
    FN(store)(out + 4, FN(high32)(v));
}
#endif

/* Masking -------------------------------------------------------------------------- */

/* Like fastws_mask_words. */
static FASTWS_TARGET uint64_t
FN(mask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    WIDE pad, seen, last;
    size_t i = 0;
    if (n < FASTWS_WIDTH) {
        return fastws_mask_words(dst, src, n, key);
    }
    pad = FN(wfill32)(key);
    last = FN(wxor)(
        FN(wload)(src + n - FASTWS_WIDTH), FN(wfill32)(fastws_rotate_key(key, n))
    );
    seen = last;
    for (; i + 4 * FASTWS_WIDTH <= n; i += 4 * FASTWS_WIDTH) {
        WIDE a = FN(wxor)(FN(wload)(src + i), pad);
        WIDE b = FN(wxor)(FN(wload)(src + i + FASTWS_WIDTH), pad);
        WIDE c = FN(wxor)(FN(wload)(src + i + 2 * FASTWS_WIDTH), pad);
        WIDE d = FN(wxor)(FN(wload)(src + i + 3 * FASTWS_WIDTH), pad);
        FN(wstore)(dst + i, a);
        FN(wstore)(dst + i + FASTWS_WIDTH, b);
        FN(wstore)(dst + i + 2 * FASTWS_WIDTH, c);
        FN(wstore)(dst + i + 3 * FASTWS_WIDTH, d);
        seen = FN(wor)(seen, FN(wor)(FN(wor)(a, b), FN(wor)(c, d)));
    }
    for (; i + FASTWS_WIDTH <= n; i += FASTWS_WIDTH) {
        WIDE a = FN(wxor)(FN(wload)(src + i), pad);
        FN(wstore)(dst + i, a);
        seen = FN(wor)(seen, a);
    }
    FN(wstore)(dst + n - FASTWS_WIDTH, last);
    return FN(wascii)(seen) ? 0 : FASTWS_HIGH_BITS;
}

/* Validation ----------------------------------------------------------------------------
 *
 * J. Keiser and D. Lemire, "Validating UTF-8 in less than one instruction per byte" (2020).
 * Three nibbles determine what is wrong with two adjacent bytes: for each nibble, a table contains
 * the set of errors that it allows, and the errors that all three allow are present. There is one
 * exception: two continuation bytes are valid if they are the second and third, or the third and
 * fourth, of their character. The bytes two and three positions earlier determine that. */

enum {
    FN(SHORT) = 1 << 0, /* a character begins before the last is complete */
    FN(LONG) = 1 << 1, /* a continuation byte after ASCII */
    FN(OVERLONG_3) = 1 << 2, /* E0 80..9F */
    FN(TOO_LARGE) = 1 << 3, /* F4 90..BF, F5..FF 80..BF */
    FN(SURROGATE) = 1 << 4, /* ED A0..BF */
    FN(OVERLONG_2) = 1 << 5, /* C0, C1 */
    FN(OVERLONG_4) = 1 << 6, /* F0 80..8F, and F5..FF with these */
    FN(TWO) = 1 << 7, /* two continuation bytes */
    /* errors that the low nibble of the first byte cannot rule out */
    FN(ANY_LOW) = FN(SHORT) | FN(LONG) | FN(TWO)
};

/* Tables indexed by the high and the low nibble of a byte, and by the high nibble of the next. */
static const uint8_t FN(first_high)[16] = {
    FN(LONG), FN(LONG), FN(LONG), FN(LONG), FN(LONG), FN(LONG), FN(LONG), FN(LONG),
    FN(TWO), FN(TWO), FN(TWO), FN(TWO),
    FN(SHORT) | FN(OVERLONG_2),
    FN(SHORT),
    FN(SHORT) | FN(OVERLONG_3) | FN(SURROGATE),
    FN(SHORT) | FN(TOO_LARGE) | FN(OVERLONG_4)
};
static const uint8_t FN(first_low)[16] = {
    FN(ANY_LOW) | FN(OVERLONG_2) | FN(OVERLONG_3) | FN(OVERLONG_4),
    FN(ANY_LOW) | FN(OVERLONG_2),
    FN(ANY_LOW), FN(ANY_LOW),
    FN(ANY_LOW) | FN(TOO_LARGE),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4), FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4), FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4), FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4), FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4) | FN(SURROGATE),
    FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4), FN(ANY_LOW) | FN(TOO_LARGE) | FN(OVERLONG_4)
};
static const uint8_t FN(second_high)[16] = {
    FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT),
    FN(LONG) | FN(TWO) | FN(OVERLONG_2) | FN(OVERLONG_3) | FN(OVERLONG_4),
    FN(LONG) | FN(TWO) | FN(OVERLONG_2) | FN(OVERLONG_3) | FN(TOO_LARGE),
    FN(LONG) | FN(TWO) | FN(OVERLONG_2) | FN(SURROGATE) | FN(TOO_LARGE),
    FN(LONG) | FN(TWO) | FN(OVERLONG_2) | FN(SURROGATE) | FN(TOO_LARGE),
    FN(SHORT), FN(SHORT), FN(SHORT), FN(SHORT)
};

/* Return a nonzero byte for each byte that must not follow the bytes before it. */
OP WIDE
FN(wrong)(WIDE v, WIDE before)
{
    WIDE previous = PREVIOUS(v, before, 1);
    WIDE errors = FN(wand)(
        FN(wand)(
            FN(wlookup)(FN(wtable)(FN(first_high)), FN(whigh)(previous)),
            FN(wlookup)(
                FN(wtable)(FN(first_low)), FN(wand)(previous, FN(wfill8)(0x0F))
            )
        ),
        FN(wlookup)(FN(wtable)(FN(second_high)), FN(whigh)(v))
    );
    /* Set the top bit of each byte that must be the third or fourth of its character. */
    WIDE third = FN(wless)(PREVIOUS(v, before, 2), FN(wfill8)(0xE0 - 0x80));
    WIDE fourth = FN(wless)(PREVIOUS(v, before, 3), FN(wfill8)(0xF0 - 0x80));
    WIDE due = FN(wand)(FN(wor)(third, fourth), FN(wfill8)(0x80));
    return FN(wxor)(due, errors);
}

/* Return nonzero bytes if the last character is incomplete. */
OP WIDE
FN(unfinished)(WIDE v)
{
    static const uint8_t most[32] = {
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xEF, 0xDF, 0xBF
    };
    return FN(wless)(v, FN(wload)(most + 32 - FASTWS_WIDTH));
}

/* Like fastws_utf8_valid_scalar. */
static FASTWS_TARGET int
FN(utf8_valid)(const uint8_t *p, size_t n)
{
    WIDE error = FN(wfill8)(0), before = error, pending = error;
    uint8_t rest[64];
    int last = 0;
    while (!last) {
        WIDE block[64 / FASTWS_WIDTH];
        WIDE seen;
        int i;
        if (n < 64) {
            /* After an incomplete character, a zero is an error. */
            memset(rest, 0, 64);
            if (n) {
                memcpy(rest, p, n);
            }
            p = rest;
            n = 64;
            last = 1;
        }
        seen = block[0] = FN(wload)(p);
        for (i = 1; i < 64 / FASTWS_WIDTH; i++) {
            block[i] = FN(wload)(p + i * FASTWS_WIDTH);
            seen = FN(wor)(seen, block[i]);
        }
        if (FN(wascii)(seen)) {
            error = FN(wor)(error, pending);
            pending = FN(wfill8)(0);
        }
        else {
            for (i = 0; i < 64 / FASTWS_WIDTH; i++) {
                error = FN(wor)(error, FN(wrong)(block[i], before));
                before = block[i];
            }
            pending = FN(unfinished)(before);
        }
        before = block[64 / FASTWS_WIDTH - 1];
        p += 64;
        n -= 64;
        /* Stop early, so that invalid data does not take much time. */
        if ((n & 0xFC0) == 0 && FN(wany)(error)) {
            return 0;
        }
    }
    return !FN(wany)(FN(wor)(error, pending));
}

/* Transcoding --------------------------------------------------------------------------
 *
 * Treat each byte as if it were the last of its character, and combine it with the bytes before
 * it. Then drop the results for bytes that are not the last, with a shuffle from a table. No branch
 * depends on the lengths of the characters, which branch prediction could not guess. (The shuffles
 * are those of D. Lemire and W. Mula, "Transcoding billions of Unicode characters per second with
 * SIMD instructions", 2021. Their algorithm looks for windows of complete characters instead.) */

/* Return a bit for each of 64 bytes: 1 if it begins a character. */
OP uint64_t
FN(starts)(const uint8_t *p)
{
    uint64_t starts = 0;
    int i;
    for (i = 0; i < 64; i += FASTWS_WIDTH) {
        starts |= FN(wstarts)(FN(wload)(p + i)) << i;
    }
    return starts;
}

OP int
FN(ascii)(const uint8_t *p)
{
    WIDE seen = FN(wload)(p);
    int i;
    for (i = FASTWS_WIDTH; i < 64; i += FASTWS_WIDTH) {
        seen = FN(wor)(seen, FN(wload)(p + i));
    }
    return FN(wascii)(seen);
}

/* Return whether a character of four bytes begins in these 64 bytes or in the 3 bytes before them.
 * If not, none of the 64 bytes belongs to one. */
OP int
FN(has_fourth)(const uint8_t *p)
{
    WIDE most = FN(wmax)(FN(wload)(p - 3), FN(wload)(p + 64 - FASTWS_WIDTH));
    int i;
    for (i = 0; i < 64 - FASTWS_WIDTH; i += FASTWS_WIDTH) {
        most = FN(wmax)(most, FN(wload)(p + i));
    }
    /* Only bytes from F0 on still have their top bit. */
    return !FN(wascii)(FN(wless)(most, FN(wfill8)(0xF0 - 0x80)));
}

/* Count the characters in valid UTF-8, and find its largest byte. */
static FASTWS_TARGET size_t
FN(utf8_count)(const uint8_t *p, size_t n, uint8_t *largest)
{
    WIDE most = FN(wfill8)(0);
    uint8_t octets[FASTWS_WIDTH];
    size_t count = 0;
    int i;
    for (; n >= 64; p += 64, n -= 64) {
        for (i = 0; i < 64; i += FASTWS_WIDTH) {
            most = FN(wmax)(most, FN(wload)(p + i));
        }
        count += (size_t)__builtin_popcountll(FN(starts)(p));
    }
    FN(wstore)(octets, most);
    *largest = 0;
    for (i = 0; i < FASTWS_WIDTH; i++) {
        *largest = octets[i] > *largest ? octets[i] : *largest;
    }
    for (; n; p++, n--) {
        count += !fastws_is_continuation(*p);
        *largest = *p > *largest ? *p : *largest;
    }
    return count;
}

/* The kernels read blocks of 64 bytes, with 3 bytes before and 1 byte after them. A store may write
 * up to 8 characters too many, but not outside the buffer: 32 more bytes follow the block, and
 * contain at least 8 characters. */
#define FASTWS_BLOCK (64 + 32)

/* Read the first characters one at a time, so that there are 3 bytes before the first block; and
 * the last ones, since the last block may have consumed some bytes of them. */
#define FASTWS_READ_FIRST(p, out, type) \
    while ((p) < end && (p) - (end - n) < 3) { \
        *(out)++ = (type)fastws_utf8_read(&(p)); \
    }
#define FASTWS_READ_LAST(p, out, type) \
    while ((p) < end && fastws_is_continuation(*(p))) { \
        (p)--; \
    } \
    while ((p) < end) { \
        *(out)++ = (type)fastws_utf8_read(&(p)); \
    }

OP NARROW
FN(continues)(NARROW v)
{
    return FN(equal)(FN(and)(v, FN(fill8)(0xC0)), FN(fill8)(0x80));
}

/* Decode characters of one byte, and those of two bytes that begin with C2 or C3. C3 adds 40 to the
 * byte after it. C2 and C3 themselves are dropped. */
static FASTWS_TARGET void
FN(utf8_to_1)(const uint8_t *p, size_t n, uint8_t *out)
{
    const uint8_t *end = p + n;
    FASTWS_READ_FIRST(p, out, uint8_t)
    while (end - p >= FASTWS_BLOCK) {
        uint64_t ends;
        int i;
        if (FN(ascii)(p)) {
            memcpy(out, p, 64);
            p += 64;
            out += 64;
            continue;
        }
        ends = FN(starts)(p + 1);
        for (i = 0; i < 64; i += 16, ends >>= 16) {
            NARROW v = FN(load)(p + i);
            NARROW is_high = FN(equal)(FN(load)(p + i - 1), FN(fill8)(0xC3));
            uint32_t low = ends & 0xFF, high = ends >> 8 & 0xFF;
            v = FN(or)(v, FN(and)(is_high, FN(fill8)(0x40)));
            FN(store_half)(out, FN(shuffle)(v, FN(load)(fastws_tables.octets[low])));
            out += __builtin_popcount(low);
            FN(store_half)(
                out,
                FN(shuffle)(v, FN(or)(FN(load)(fastws_tables.octets[high]), FN(fill8)(8)))
            );
            out += __builtin_popcount(high);
        }
        p += 64;
    }
    FASTWS_READ_LAST(p, out, uint8_t)
}

/* Combine eight characters from their lowest 7 bits, the 6 bits above them and the others; keep
 * those whose last byte is in its place. */
OP NARROW
FN(eight)(NARROW low, NARROW middle, NARROW top, uint32_t ends)
{
    NARROW v = FN(or)(low, FN(or)(LEFT16(middle, 6), LEFT16(top, 12)));
    return FN(shuffle)(v, FN(load)(fastws_tables.pairs[ends]));
}

/* Decode the characters in 16 bytes, in two halves. None may be longer than three bytes. */
OP void
FN(sixteen)(const uint8_t *p, uint32_t ends, NARROW *first, NARROW *second)
{
    NARROW v = FN(load)(p), before = FN(load)(p - 1);
    NARROW is_next = FN(continues)(v);
    NARROW is_third = FN(and)(FN(continues)(before), is_next);
    NARROW top = FN(and)(FN(load)(p - 2), is_third);
    NARROW middle = FN(and)(FN(and)(before, FN(fill8)(0x3F)), is_next);
    NARROW low = FN(xor)(v, FN(and)(is_next, FN(fill8)(0x80)));
    *first = FN(eight)(FN(low16)(low), FN(low16)(middle), FN(low16)(top), ends & 0xFF);
    *second = FN(eight)(FN(high16)(low), FN(high16)(middle), FN(high16)(top), ends >> 8 & 0xFF);
}

/* If all characters that end in the next `bytes` bytes have this size, return where the first of
 * them begins; otherwise return NULL. */
OP const uint8_t *
FN(all_of_size)(const uint8_t *p, uint64_t ends, int size, int bytes)
{
    uint64_t all = ~UINT64_C(0) >> (64 - bytes);
    const uint8_t *from;
    if (((ends ^ ends >> size) & all >> size) != 0
        || __builtin_popcountll(ends & all) != bytes / size) {
        return NULL;
    }
    /* The distances between their ends are right, but the first one may be shorter. */
    from = p + 1 + __builtin_ctzll(ends) - size;
    return *from >= (size == 3 ? 0xE0 : 0xF0) ? from : NULL;
}

/* Decode characters of three bytes, one for each 32-bit element. */
OP WIDE
FN(of_three)(const uint8_t *p)
{
    static const uint8_t reverse[16] = {
        2, 1, 0, 0x80, 5, 4, 3, 0x80, 8, 7, 6, 0x80, 11, 10, 9, 0x80
    };
    WIDE v = FN(wlookup)(FN(wload12)(p), FN(wtable)(reverse));
    WIDE low = FN(wand)(v, FN(wfill32)(0x0000003F));
    WIDE middle = FN(wand)(v, FN(wfill32)(0x00003F00));
    WIDE top = FN(wand)(v, FN(wfill32)(0x000F0000));
    return FN(wor)(low, FN(wor)(WRIGHT32(middle, 2), WRIGHT32(top, 4)));
}

/* Decode characters of four bytes, one for each 32-bit element. */
OP WIDE
FN(of_four)(const uint8_t *p)
{
    static const uint8_t reverse[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    WIDE v = FN(wlookup)(FN(wload)(p), FN(wtable)(reverse));
    WIDE low = FN(wand)(v, FN(wfill32)(0x0000003F));
    WIDE middle = FN(wand)(v, FN(wfill32)(0x00003F00));
    WIDE third = FN(wand)(v, FN(wfill32)(0x003F0000));
    WIDE top = FN(wand)(v, FN(wfill32)(0x07000000));
    return FN(wor)(
        FN(wor)(low, WRIGHT32(middle, 2)), FN(wor)(WRIGHT32(third, 4), WRIGHT32(top, 6))
    );
}

/* Decode characters of up to three bytes. */
static FASTWS_TARGET void
FN(utf8_to_2)(const uint8_t *p, size_t n, uint16_t *out)
{
    const uint8_t *end = p + n;
    FASTWS_READ_FIRST(p, out, uint16_t)
    while (end - p >= FASTWS_BLOCK) {
        NARROW first, second;
        const uint8_t *from;
        uint64_t ends;
        int i;
        if (FN(ascii)(p)) {
            for (i = 0; i < 64; i += 16) {
                NARROW v = FN(load)(p + i);
                FN(store)(out + i, FN(low16)(v));
                FN(store)(out + i + 8, FN(high16)(v));
            }
            p += 64;
            out += 64;
            continue;
        }
        ends = FN(starts)(p + 1);
        from = FN(all_of_size)(p, ends, 3, 48);
        if (from != NULL) {
            for (i = 0; i < 48; i += FASTWS_WIDTH * 3 / 2) {
                WIDE a = FN(of_three)(from + i);
                WIDE b = FN(of_three)(from + i + FASTWS_WIDTH * 3 / 4);
                FN(store_halved)(out, a, b);
                out += FASTWS_WIDTH / 2;
            }
            p += 48;
            continue;
        }
        for (i = 0; i < 64; i += 16, ends >>= 16) {
            FN(sixteen)(p + i, (uint32_t)ends, &first, &second);
            FN(store)(out, first);
            out += __builtin_popcountll(ends & 0xFF);
            FN(store)(out, second);
            out += __builtin_popcountll(ends & 0xFF00);
        }
        p += 64;
    }
    FASTWS_READ_LAST(p, out, uint16_t)
}

/* Combine eight characters from their lowest 12 bits and the others, and store those whose last
 * byte is in its place. Return where to store the next ones. */
#if FASTWS_WIDTH == 32
OP uint32_t *
FN(store_eight)(uint32_t *out, NARROW low, NARROW high, uint64_t ends)
{
    __m128i from = _mm_loadl_epi64((const __m128i *)fastws_tables.octets[ends & 0xFF]);
    __m256i v = _mm256_or_si256(
        _mm256_cvtepu16_epi32(low), _mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 12)
    );
    v = _mm256_permutevar8x32_epi32(v, _mm256_cvtepu8_epi32(from));
    _mm256_storeu_si256((__m256i *)out, v);
    return out + __builtin_popcountll(ends & 0xFF);
}
#else
OP uint32_t *
FN(store_four)(uint32_t *out, NARROW low, NARROW high, uint64_t ends)
{
    NARROW v = FN(or)(low, LEFT32(high, 12));
    FN(store)(out, FN(shuffle)(v, FN(load)(fastws_tables.fours[ends & 0xF])));
    return out + __builtin_popcountll(ends & 0xF);
}

OP uint32_t *
FN(store_eight)(uint32_t *out, NARROW low, NARROW high, uint64_t ends)
{
    out = FN(store_four)(out, FN(low32)(low), FN(low32)(high), ends);
    return FN(store_four)(out, FN(high32)(low), FN(high32)(high), ends >> 4);
}
#endif

static FASTWS_TARGET void
FN(utf8_to_4)(const uint8_t *p, size_t n, uint32_t *out)
{
    const uint8_t *end = p + n;
    FASTWS_READ_FIRST(p, out, uint32_t)
    while (end - p >= FASTWS_BLOCK) {
        const uint8_t *from;
        uint64_t ends;
        int i;
        if (FN(ascii)(p)) {
            for (i = 0; i < 64; i += 16) {
                NARROW v = FN(load)(p + i);
                FN(store_wider)(out + i, FN(low16)(v));
                FN(store_wider)(out + i + 8, FN(high16)(v));
            }
            p += 64;
            out += 64;
            continue;
        }
        ends = FN(starts)(p + 1);
        if (!FN(has_fourth)(p)) {
            for (i = 0; i < 64; i += 16, ends >>= 16) {
                NARROW first, second;
                FN(sixteen)(p + i, (uint32_t)ends, &first, &second);
                FN(store_wider)(out, first);
                out += __builtin_popcountll(ends & 0xFF);
                FN(store_wider)(out, second);
                out += __builtin_popcountll(ends & 0xFF00);
            }
            p += 64;
            continue;
        }
        from = FN(all_of_size)(p, ends, 4, 64);
        if (from != NULL) {
            for (i = 0; i < 64; i += FASTWS_WIDTH) {
                FN(wstore)((uint8_t *)out, FN(of_four)(from + i));
                out += FASTWS_WIDTH / 4;
            }
            p += 64;
            continue;
        }
        for (i = 0; i < 64; i += 16, ends >>= 16) {
            NARROW v = FN(load)(p + i);
            NARROW before = FN(load)(p + i - 1), second = FN(load)(p + i - 2);
            NARROW is_next = FN(continues)(v);
            NARROW is_third = FN(and)(FN(continues)(before), is_next);
            NARROW is_fourth = FN(and)(FN(continues)(second), is_third);
            NARROW top = FN(and)(FN(and)(FN(load)(p + i - 3), FN(fill8)(0x07)), is_fourth);
            /* The first of three bytes has 4 bits of the character, the second of four has 6. */
            NARROW counts = FN(or)(FN(and)(is_fourth, FN(fill8)(0x30)), FN(fill8)(0x0F));
            NARROW middle = FN(and)(FN(and)(before, FN(fill8)(0x3F)), is_next);
            v = FN(xor)(v, FN(and)(is_next, FN(fill8)(0x80)));
            second = FN(and)(FN(and)(second, counts), is_third);
            out = FN(store_eight)(
                out,
                FN(or)(FN(low16)(v), LEFT16(FN(low16)(middle), 6)),
                FN(or)(FN(low16)(second), LEFT16(FN(low16)(top), 6)),
                ends
            );
            out = FN(store_eight)(
                out,
                FN(or)(FN(high16)(v), LEFT16(FN(high16)(middle), 6)),
                FN(or)(FN(high16)(second), LEFT16(FN(high16)(top), 6)),
                ends >> 8
            );
        }
        p += 64;
    }
    FASTWS_READ_LAST(p, out, uint32_t)
}

#undef FASTWS_BLOCK
#undef FASTWS_READ_FIRST
#undef FASTWS_READ_LAST
#undef LEFT16
#undef RIGHT32
#undef LEFT32
#undef WRIGHT32
#undef PREVIOUS
#undef NARROW
#undef WIDE
#undef OP
#undef FN
#undef FASTWS_JOIN
#undef FASTWS_JOIN_
