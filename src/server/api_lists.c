#include <stdlib.h>
#include <string.h>

#include "base/blake2b.h"
#include "server/api_internal.h"

static cmi_status add_stop(cmi_stop_set *set, const json_t *value, cmi_api_error *err)
{
    if (!json_is_string(value)) {
        return cmi_api_refuse(err, "stop", "stop must be a string or an array of strings.");
    }
    if (set->n == CMI_MAX_STOP_STRINGS) {
        return cmi_api_refuse(err, "stop", "stop can have at most %d strings.",
                              CMI_MAX_STOP_STRINGS);
    }
    if (!cmi_stop_set_add(set, json_string_value(value), json_string_length(value))) {
        return cmi_api_refuse(err, "stop", "A stop string must have 1 to %d bytes.",
                              CMI_MAX_STOP_STRING_BYTES);
    }
    return CMI_OK;
}

cmi_status cmi_api_read_stop(const json_t *root, cmi_stop_set *set, cmi_api_error *err)
{
    const json_t *stop = json_object_get(root, "stop");
    if (stop == NULL || json_is_null(stop)) {
        return CMI_OK;
    }
    if (!json_is_array(stop)) {
        return add_stop(set, stop, err);
    }
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < json_array_size(stop); i++) {
        st = add_stop(set, json_array_get(stop, i), err);
    }
    return st;
}

/* A non-empty string; absent or null leaves salt_out as it is. */
cmi_status cmi_api_read_cache_salt(const json_t *root, uint8_t salt_out[CMI_CACHE_SALT_BYTES],
                                   cmi_api_error *err)
{
    const json_t *salt = json_object_get(root, "cache_salt");
    if (salt == NULL || json_is_null(salt)) {
        return CMI_OK;
    }
    if (!json_is_string(salt) || json_string_length(salt) == 0) {
        return cmi_api_refuse(err, "cache_salt", "cache_salt must be a string that is not empty.");
    }
    cmi_blake2b h;
    cmi_blake2b_init(&h, NULL, 0);
    cmi_blake2b_update(&h, json_string_value(salt), json_string_length(salt));
    cmi_blake2b_final(&h, salt_out);
    return CMI_OK;
}

cmi_status cmi_api_read_stop_token_ids(const json_t *root, uint32_t vocab_size, cmi_ids *ids_out,
                                       cmi_api_error *err)
{
    const json_t *ids = json_object_get(root, "stop_token_ids");
    if (ids == NULL || json_is_null(ids)) {
        return CMI_OK;
    }
    if (!json_is_array(ids) || json_array_size(ids) > CMI_MAX_STOP_TOKEN_IDS) {
        return cmi_api_refuse(err, "stop_token_ids",
                              "stop_token_ids must be an array of at most %d token ids.",
                              CMI_MAX_STOP_TOKEN_IDS);
    }
    return cmi_api_read_ids(ids, vocab_size, "stop_token_ids", ids_out, err);
}

static bool read_key(const char *key, uint32_t vocab_size, uint32_t *id_out)
{
    size_t n = strspn(key, "0123456789");
    if (n == 0 || n > 10 || key[n] != '\0') {
        return false;
    }
    unsigned long long id = strtoull(key, NULL, 10);
    *id_out = (uint32_t)id;
    return id < vocab_size;
}

cmi_status cmi_api_read_logit_bias(const json_t *root, uint32_t vocab_size,
                                   cmi_logit_bias bias_out[CMI_MAX_LOGIT_BIAS], uint32_t *n_out,
                                   cmi_api_error *err)
{
    static const char name[] = "logit_bias";
    *n_out = 0;
    json_t *map = json_object_get(root, name);
    if (map == NULL || json_is_null(map)) {
        return CMI_OK;
    }
    if (!json_is_object(map) || json_object_size(map) > CMI_MAX_LOGIT_BIAS) {
        return cmi_api_refuse(err, name,
                              "logit_bias must be an object with at most %d token ids as keys.",
                              CMI_MAX_LOGIT_BIAS);
    }
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        cmi_logit_bias *bias = &bias_out[(*n_out)++];
        if (!read_key(key, vocab_size, &bias->token_id)) {
            return cmi_api_refuse(err, name,
                                  "logit_bias: \"%.40s\" is not in the vocabulary of %u ids.", key,
                                  vocab_size);
        }
        double x = json_number_value(value);
        if (!json_is_number(value) || !(x >= -100 && x <= 100)) {
            return cmi_api_refuse(err, name, "logit_bias: a bias must be between -100 and 100.");
        }
        bias->bias = (float)x;
    }
    return CMI_OK;
}
