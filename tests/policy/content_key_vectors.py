#!/usr/bin/env python3
"""content_key_vectors.py [--print] - docs/CONTENT_KEY.md, written a second time.

Computes the vectors of the specification with Python's hashlib, from its text and not from our C
code, and checks that the document and the C tests have them. --print prints them instead.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOLDERS = {
    'key': ('docs/CONTENT_KEY.md', 'tests/policy/content_key_test.c'),
    'weights': ('docs/CONTENT_KEY.md', 'tests/model/weights_digest_test.c'),
}


def blake2b(message, key=b''):
    return hashlib.blake2b(message, digest_size=32, key=key).digest()


# ---- content keys --------------------------------------------------------------------------------

def space_key(secret, salt):
    return blake2b(b'cminfer.kv.space' + struct.pack('<IQ', 1, len(salt)) + salt, secret)


def space_tag(key):
    return struct.unpack('<Q', blake2b(b'cminfer.kv.label' + struct.pack('<I', 1), key)[:8])[0]


def block_key(space, model, parent, tokens):
    assert len(tokens) == 128
    head = b'cminfer.kv.block' + struct.pack(
        '<IIIIIIII', 1, 128, model['quantization'], model['compute'], model['kv'],
        model['layout'], model['mtp'], 0)
    return blake2b(head + model['weights'] + parent + struct.pack('<128I', *tokens), space)


def key_vectors():
    secret = bytes(range(32))
    model = {'weights': bytes(range(100, 132)), 'quantization': 1, 'compute': 2, 'kv': 3,
             'layout': 7, 'mtp': 1}
    plain, salted = space_key(secret, b''), space_key(secret, b'tenant-7')
    yield 'space key, no salt', plain.hex()
    yield 'space key, salt "tenant-7"', salted.hex()
    yield 'space tag, no salt', f'{space_tag(plain):016x}'
    first = block_key(plain, model, bytes(32), range(128))
    yield 'block 0', first.hex()
    yield 'block 1', block_key(plain, model, first, range(128, 256)).hex()
    yield 'block 0, salted', block_key(salted, model, bytes(32), range(128)).hex()
    other = dict(model, quantization=0, compute=1, kv=1, mtp=0)
    yield 'block 0, float32', block_key(plain, other, bytes(32), range(128)).hex()


# ---- weights digests -----------------------------------------------------------------------------

def tensor_digest(name, label, shape, data):
    n_rows = 1
    for size in shape[:-1]:
        n_rows *= size
    leaves = []
    if data:
        leaf_bytes = max(131072 // (len(data) // n_rows), 1) * (len(data) // n_rows)
        head = (b'cminfer.w.leaf'.ljust(16, b'\0') + struct.pack('<I', 1)).ljust(128, b'\0')
        leaves = [blake2b(head + data[at:at + leaf_bytes])
                  for at in range(0, len(data), leaf_bytes)]
    name = name.encode()
    head = b'cminfer.w.tensor' + struct.pack('<IIQQ', 1, len(shape), len(name), len(leaves))
    return blake2b(head + label.encode().ljust(16, b'\0')
                   + b''.join(struct.pack('<Q', size) for size in shape) + name
                   + b''.join(leaves))


def sample_digest(name, label, shape, data):
    n_rows = 1
    for size in shape[:-1]:
        n_rows *= size
    name = name.encode()
    leaves = 0
    row = b''
    if data:
        row_bytes = len(data) // n_rows
        leaves = -(-n_rows // max(131072 // row_bytes, 1))
        row = data[:row_bytes]
    head = b'cminfer.w.sample' + struct.pack('<IIQQ', 1, len(shape), len(name), leaves)
    return blake2b(head + label.encode().ljust(16, b'\0')
                   + b''.join(struct.pack('<Q', size) for size in shape) + name + row)


def set_digest(tensors):
    return blake2b(b'cminfer.w.set'.ljust(16, b'\0') + struct.pack('<IIQ', 1, 0, len(tensors))
                   + b''.join(sorted(tensors)))


def model_digest(config, tensors, fp8=(0, 0)):
    numbers = [config[field] for field in (
        'vocab_size', 'hidden_size', 'intermediate_size', 'moe_intermediate_size',
        'num_hidden_layers', 'num_attention_heads', 'q_lora_rank', 'kv_lora_rank',
        'qk_nope_head_dim', 'qk_rope_head_dim', 'v_head_dim', 'n_routed_experts',
        'n_shared_experts', 'num_experts_per_tok', 'n_group', 'topk_group',
        'first_k_dense_replace', 'moe_layer_freq')]
    numbers.append({'softmax': 1, 'sigmoid': 2}[config['scoring_func']])
    numbers.append({'greedy': 1, 'group_limited_greedy': 2, 'noaux_tc': 3}[config['topk_method']])
    numbers += [int(config['norm_topk_prob']), int(config['tie_word_embeddings'])]
    numbers += [*fp8, 0, 0]  # no YaRN
    reals = [config['routed_scaling_factor'], config['rms_norm_eps'], 1e-6, config['rope_theta'],
             0.0, 0.0, 0.0, 0.0, 0.0]
    return blake2b(b'cminfer.w.model'.ljust(16, b'\0') + struct.pack('<II', 1, 0)
                   + set_digest(tensors) + struct.pack('<26I', *numbers)
                   + struct.pack('<9d', *reals))


def bundled_digest(folder, with_mtp, with_experts=True):
    config = json.loads((folder / 'config.json').read_text())
    tensors = []
    for path in sorted(folder.glob('*.safetensors')):
        raw = path.read_bytes()
        size = struct.unpack('<Q', raw[:8])[0]
        for name, entry in json.loads(raw[8:8 + size]).items():
            is_mtp = name.startswith(f'model.layers.{config["num_hidden_layers"]}.')
            # The MTP layer's copies of the model's embedding and head are not read.
            is_read = not is_mtp or (with_mtp and not name.endswith(
                ('.embed_tokens.weight', '.shared_head.head.weight')))
            if name != '__metadata__' and is_read:
                begin, end = entry['data_offsets']
                is_sample = not with_experts and '.mlp.experts.' in name
                digest = sample_digest if is_sample else tensor_digest
                tensors.append(digest(name, entry['dtype'], entry['shape'],
                                      raw[8 + size + begin:8 + size + end]))
    quantization = config.get('quantization_config')
    return model_digest(config, tensors, quantization['weight_block_size'] if quantization
                        else (0, 0))


def weights_vectors():
    ramp = bytes(i * 7 % 251 for i in range(3 * 100 * 1000 * 4))
    yield 'tensor "a", BF16 [2, 3]', tensor_digest('a', 'BF16', [2, 3], bytes(range(12))).hex()
    yield 'tensor "b", F32 [3, 100, 1000]', tensor_digest('b', 'F32', [3, 100, 1000], ramp).hex()
    yield 'tensor "none", I8 [0]', tensor_digest('none', 'I8', [0], b'').hex()
    yield 'sample of "b"', sample_digest('b', 'F32', [3, 100, 1000], ramp).hex()
    yield 'sample of "none"', sample_digest('none', 'I8', [0], b'').hex()
    yield 'matrix-tiny', bundled_digest(ROOT / 'models/matrix-tiny', True).hex()
    yield 'matrix-tiny without MTP', bundled_digest(ROOT / 'models/matrix-tiny', False).hex()
    yield 'matrix-tiny-fp8', bundled_digest(ROOT / 'models/matrix-tiny-fp8', True).hex()
    yield 'matrix-tiny without experts', bundled_digest(ROOT / 'models/matrix-tiny', True,
                                                        False).hex()
    yield 'matrix-tiny-fp8 without experts', bundled_digest(ROOT / 'models/matrix-tiny-fp8', True,
                                                            False).hex()


def main():
    vectors = [('key', *v) for v in key_vectors()] + [('weights', *v) for v in weights_vectors()]
    if sys.argv[1:] == ['--print']:
        for _, name, value in vectors:
            print(f'{name:32} {value}')
        return 0
    status = 0
    for kind, name, value in vectors:
        for path in HOLDERS[kind]:
            if value not in (ROOT / path).read_text():
                print(f'{path}: lacks {name}: {value}')
                status = 1
    return status


if __name__ == '__main__':
    sys.exit(main())
