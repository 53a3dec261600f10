#include "model/byte_alphabet.h"

#include "model/text_slice.h"

void byte_alphabet_init(struct byte_alphabet *alphabet)
{
    for (int i = 0; i < BYTE_ALPHABET_POINTS; i++) {
        alphabet->bytes[i] = -1;
    }
    int next = 256;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
        alphabet->bytes[printable ? byte : next] = (int16_t)byte;
        next += printable ? 0 : 1;
    }
}

ptrdiff_t byte_alphabet_decode(const struct byte_alphabet *alphabet, const char *text,
                               size_t len_bytes, char *out)
{
    ptrdiff_t count = 0;
    for (size_t at = 0; at < len_bytes;) {
        size_t len = 1;
        uint32_t point = text_code_point(text + at, &len);
        if (point >= BYTE_ALPHABET_POINTS || alphabet->bytes[point] < 0) {
            return -1;
        }
        out[count++] = (char)(unsigned char)alphabet->bytes[point];
        at += len;
    }
    return count;
}
