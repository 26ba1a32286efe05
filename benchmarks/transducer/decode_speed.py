"""Speed of transducer decoding.

    python -m benchmarks.transducer.decode_speed

Greedy search of 32 sequences of 400 frames, 256 features and 500 classes, with a predictor that
sees the last two labels and with an LSTM, compared with a plain jitted loop in JAX that decodes one
sequence at a time, and with label looping in torch (Bataev et al. 2024, "Label-looping: highly
efficient decoding for transducers", arXiv 2406.06220), written from the paper. All have the
same weights, and return labels, frames and the score of the path, which are compared. The joint
network alone, for all sequences and as many steps as the decoder makes, is what no decoder can go
below that asks it once a step. jaxctc decodes once on one device, and once split over as many as
the machine has cores; ratios are to the faster. Then the beam search, for all sequences together
and one at a time; and the time of one frame, 40 ms of sound, of 1 and of 256 streams. A program
that keeps up takes less than 40 ms.

The networks are not trained. A frame has the row of its label, or of the blank, plus noise; the
predictor's output takes the last label's row away again, so that it is emitted once.
"""

import os
from typing import NamedTuple

# XLA takes each core for a device of its own.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={os.cpu_count()}"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

import jaxctc
from benchmarks.common import finished, options, report, table, time_in_turn

BATCH, FRAMES, WIDTH, CLASSES = 32, 400, 256, 500
MAX_SYMBOLS = 10
STREAMS, STREAMED = (1, 256), 25  # frames
PREDICTORS = ("two labels", "LSTM")


class Network(NamedTuple):
    """Weights as numpy arrays; `recurrent` is that of the predictor."""

    rows: np.ndarray  # [C, D]
    output: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]
    recurrent: np.ndarray


def made(predictor: str) -> tuple[Network, np.ndarray]:
    """A network, and an encoder's output of which every fifth frame has a label."""
    generator = np.random.default_rng(0)
    rows = generator.choice(np.array([-0.6, 0.6], np.float32), (CLASSES, WIDTH))
    spoken = generator.integers(1, CLASSES, (BATCH, FRAMES))
    spoken *= generator.random((BATCH, FRAMES)) < 0.2
    noise = generator.standard_normal((BATCH, FRAMES, WIDTH), np.float32)
    inputs, outputs = (2 * WIDTH, 4 * WIDTH) if predictor == "LSTM" else (WIDTH, WIDTH)
    recurrent = generator.standard_normal((inputs, outputs), np.float32) / inputs**0.5
    bias = np.where(np.arange(CLASSES) == 0, 9, 0).astype(np.float32)
    return Network(rows, 0.2 * rows.T.copy(), bias, recurrent), rows[spoken] + 0.35 * noise


def functions(network: Network, predictor: str):
    """The joint network, the predictor, and its start, as the decoders take them."""

    def joint(frame, output):
        return jnp.tanh(frame + output) @ network.output + network.bias

    def two_labels(before, label):
        output = 0.1 * network.rows[before] @ network.recurrent
        return output - network.rows[label] * (label > 0), label

    def lstm(state, label):
        hidden, cell = state
        gates = jnp.concatenate([network.rows[label], hidden]) @ network.recurrent
        enter, forget, leave, new = jnp.split(gates, 4)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return 0.1 * hidden - network.rows[label] * (label > 0), (hidden, cell)

    if predictor == "LSTM":
        return joint, lstm, (jnp.zeros(WIDTH), jnp.zeros(WIDTH))
    return joint, two_labels, jnp.int32(0)


def plain(network: Network, encoder, predictor: str):
    """Greedy search as a textbook loop over one sequence after another."""
    joint, predict, begun = functions(network, predictor)

    def one(frames):
        def step(carry):
            t, symbols, length, labels, at, score, output, state = carry
            log_probs = jax.nn.log_softmax(joint(frames[t], output))
            label = jnp.where(symbols < MAX_SYMBOLS, jnp.argmax(log_probs), 0).astype(jnp.int32)
            emits = label != 0
            place = jnp.where(emits, length, FRAMES)
            output, state = jax.lax.cond(
                emits, lambda: predict(state, label), lambda: (output, state)
            )
            return (
                jnp.where(emits, t, t + 1),
                jnp.where(emits, symbols + 1, 0),
                length + emits.astype(jnp.int32),
                labels.at[place].set(label, mode="drop"),
                at.at[place].set(t, mode="drop"),
                score + log_probs[label],
                output,
                state,
            )

        zero, none = jnp.int32(0), jnp.full(FRAMES, -1, jnp.int32)
        start = zero, zero, zero, none, none, jnp.float32(0), *predict(begun, zero)
        found = jax.lax.while_loop(lambda carry: carry[0] < FRAMES, step, start)
        return found[3:6]

    return jax.lax.map(one, encoder)


def label_looping(network: Network, encoder: np.ndarray, predictor: str):
    """A function that decodes in torch: the outer loop goes from label to label."""
    import torch

    rows, output, bias, recurrent = map(torch.from_numpy, network)
    frames = torch.from_numpy(encoder)
    row = torch.arange(BATCH)

    def predict(state, label):
        known = rows[label] * (label > 0)[:, None]
        if predictor != "LSTM":
            return 0.1 * rows[state[0]] @ recurrent - known, (label,)
        hidden, cell = state
        gates = torch.cat([rows[label], hidden], dim=1) @ recurrent
        enter, forget, leave, new = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        return 0.1 * hidden - known, (hidden, cell)

    def best(time, predicted):
        frame = frames[row, time.clamp(max=FRAMES - 1)]
        log_probs = torch.log_softmax(torch.tanh(frame + predicted) @ output + bias, dim=1)
        return log_probs.max(dim=1)

    @torch.inference_mode()
    def decode():
        time = torch.zeros(BATCH, dtype=torch.long)
        length, symbols = time.clone(), time.clone()
        labels = torch.full((BATCH, FRAMES + 1), -1)
        at, score = labels.clone(), torch.zeros(BATCH)
        zeros = torch.zeros(BATCH, WIDTH)
        state = (zeros, zeros) if predictor == "LSTM" else (time.clone(),)
        predicted, state = predict(state, torch.zeros_like(time))
        active = time < FRAMES
        while active.any():
            gain, label = best(time, predicted)
            gain, is_blank = gain * active, label == 0
            score += gain
            # The inner loop: on to the next frame with a label, with the same predictor's output.
            goes_on = active & is_blank
            time += goes_on
            goes_on &= time < FRAMES
            while goes_on.any():
                gain, later = best(time, predicted)
                score += gain * goes_on
                label = torch.where(goes_on, later, label)
                goes_on &= label == 0
                time += goes_on
                goes_on &= time < FRAMES
            emits = active & (label != 0)
            place = torch.where(emits, length, FRAMES)
            symbols = torch.where(at[row, (length - 1).clamp(min=0)] == time, symbols + 1, 1)
            labels[row, place], at[row, place] = label, time
            length += emits
            after, new = predict(state, torch.where(emits, label, 0))
            kept = emits[:, None]
            predicted = torch.where(kept, after, predicted)
            state = tuple(
                torch.where(kept if x.dim() > 1 else emits, x, y)
                for x, y in zip(new, state, strict=True)
            )
            # With as many labels as there may be, on to the next frame.
            time += emits & (symbols >= MAX_SYMBOLS)
            active = time < FRAMES
        return labels[:, :FRAMES], at[:, :FRAMES], score

    return decode


def greedy_contestants(predictor: str):
    """By name, functions that decode greedily."""
    import torch

    torch.set_num_threads(2)
    network, encoder = made(predictor)

    def ours(network, encoder):
        decode = jaxctc.rnnt_greedy_decode
        nets = functions(network, predictor)
        found = decode(*nets, encoder, max_symbols=MAX_SYMBOLS, max_labels=FRAMES)
        return found.labels, found.frames, found.scores

    everywhere, batch = PartitionSpec(), PartitionSpec("batch")
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    split = jax.shard_map(ours, mesh=mesh, in_specs=(everywhere, batch), out_specs=batch)
    together, shared = jax.jit(ours), jax.jit(split)
    arguments = jax.device_put((network, encoder))
    places = [jax.NamedSharding(mesh, spec) for spec in (everywhere, batch)]
    placed = [jax.device_put(x, place) for x, place in zip(arguments, places, strict=True)]
    one_by_one = jax.jit(lambda network, encoder: plain(network, encoder, predictor))
    return {
        "jaxctc": lambda: finished(together(*arguments)),
        "jaxctc, each core a device": lambda: finished(shared(*placed)),
        "plain loop": lambda: finished(one_by_one(*arguments)),
        "torch": label_looping(network, encoder, predictor),
    }


def joint_alone(predictor: str, steps: int):
    """A function that asks the joint network for the best class of all sequences, `steps` times."""
    network, encoder = made(predictor)

    @jax.jit
    def run(network, encoder):
        joint = jax.vmap(functions(network, predictor)[0])

        def step(carry):
            step, total = carry
            frame = jax.lax.dynamic_index_in_dim(encoder, step % FRAMES, 1, keepdims=False)
            return step + 1, total + joint(frame, jnp.zeros_like(frame)).max(axis=1)

        begun = jnp.int32(0), jnp.zeros(BATCH)
        return jax.lax.while_loop(lambda carry: carry[0] < steps, step, begun)

    arguments = jax.device_put((network, encoder))
    return lambda: finished(run(*arguments))


def greedy(rounds: int):
    rows, data = [], {}
    for predictor in PREDICTORS:
        contestants = greedy_contestants(predictor)
        labels, at, scores = (np.asarray(x) for x in contestants["jaxctc"]())
        for name, decode in contestants.items():
            found = [np.asarray(x) for x in decode()]
            # Of two classes that nearly tie, rounding may choose another one.
            assert (found[0] == labels).mean() > 0.999, name
            assert (found[1] == at).mean() > 0.999, name
            np.testing.assert_allclose(found[2], scores, rtol=1e-3, err_msg=name)
        contestants["joint alone"] = joint_alone(predictor, FRAMES + (labels >= 0).sum(1).max())
        timings = time_in_turn(contestants, rounds, calls=1)
        ours = min(timings[n].median for n in ("jaxctc", "jaxctc, each core a device"))
        ratios = [timings[n].median / ours for n in ("plain loop", "torch")]
        rows.append([predictor, *timings.values(), *(f"**{r:.2f}x**" for r in ratios)])
        data[predictor] = {
            "milliseconds": {name: t._asdict() for name, t in timings.items()},
            "ratios": dict(zip(("plain loop", "torch"), ratios, strict=True)),
            "labels": float((labels >= 0).sum(axis=1).mean()),
        }
    header = ["predictor", *contestants, "to the plain loop", "to torch"]
    return {"Greedy, milliseconds": table(header, rows)}, data


def beam(rounds: int):
    rows, data = [], {}
    for predictor in PREDICTORS:
        network, encoder = made(predictor)

        def search(network, encoder, predictor=predictor):
            nets = functions(network, predictor)
            found = jaxctc.rnnt_beam_search(*nets, encoder, beam_width=8, max_labels=FRAMES)
            return found.scores

        def each(network, encoder, search=search):
            return jax.lax.map(lambda x: search(network, x), encoder)

        arguments = jax.device_put((network, encoder))
        together, alone = jax.jit(search), jax.jit(each)
        contestants = {
            "together": lambda f=together, x=arguments: finished(f(*x)),
            "one at a time": lambda f=alone, x=arguments: finished(f(*x)),
        }
        timings = time_in_turn(contestants, rounds, calls=1)
        rows.append([predictor, *timings.values()])
        data[predictor] = {name: t._asdict() for name, t in timings.items()}
    header = ["predictor", "all sequences together", "one sequence at a time"]
    return {"Beam search of width 8, milliseconds": table(header, rows)}, data


def streams(rounds: int):
    rows, data = [], {}
    for predictor in PREDICTORS:
        network, encoder = made(predictor)
        network = jax.device_put(network)
        for width in (None, 8):
            taken = []
            for count in STREAMS:
                nets = functions(network, predictor)
                start = jaxctc.rnnt_decode_start(
                    *nets[1:], batch=(count,), max_labels=100, beam_width=width
                )
                heard = np.resize(encoder, (count, FRAMES, WIDTH))[:, :STREAMED]
                pieces = [jnp.asarray(heard[:, t : t + 1]) for t in range(STREAMED)]

                @jax.jit
                def extend(network, state, piece, predictor=predictor):
                    nets = functions(network, predictor)
                    return jaxctc.rnnt_decode_extend(state, *nets[:2], piece)

                def listen(extend=extend, pieces=pieces, state=start, network=network):
                    for piece in pieces:
                        state = finished(extend(network, state, piece))

                (timing,) = time_in_turn({"stream": listen}, rounds, calls=1).values()
                taken.append(timing.median / STREAMED)
            name = f"{predictor}, {'greedy' if width is None else f'beam of {width}'}"
            rows.append([name, *taken])
            data[name] = dict(zip(map(str, STREAMS), taken, strict=True))
    header = ["", *(f"{n} stream{'s' * (n > 1)}" for n in STREAMS)]
    return {"One frame of a stream, milliseconds": table(header, rows)}, data


def main():
    rounds = options(__doc__, rounds=7).rounds
    sections, data = {}, {}
    for part in (greedy(rounds), beam(max(1, rounds // 3)), streams(max(1, rounds // 2))):
        sections.update(part[0])
        data[next(iter(part[0]))] = part[1]
    report("transducer.decode_speed", sections, data)


if __name__ == "__main__":
    main()
