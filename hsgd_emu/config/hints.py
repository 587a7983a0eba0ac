"""What the words of other tools are here: said of an unknown key, in a file or in `--set`."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel

from hsgd_emu.config.run_schema import AveragingSpec, DataSpec, EvaluationSpec, ModelSpec, TargetSpec, TrainSpec

_TABLE = """
optimizer optim opt local_optimizer client_optimizer adam adamw
    here it is train.optimizer: sgd (with train.momentum), adam or adamw (with train.betas and epsilon)
eps
    here it is train.epsilon, of the optimizers adam and adamw
amsgrad nesterov
    workers step by sgd with momentum, adam or adamw as torch.optim has them, without this variant
lr eta step_size local_lr client_lr initial_lr base_lr
    here it is train.learning_rate
lr_schedule lr_scheduler scheduler lr_decay lr_gamma gamma milestones step_lr cosine warmup warmup_steps decay_rate
    here it is part of train.learning_rate, as in {schedule: step, initial: 0.1, milestones: [1000], factor: 0.1}; or
    schedule: cosine (with warmup), inverse_sqrt or power
server_lr global_lr server_optimizer server_momentum server_learning_rate
    what a server does with the average is servers, by server, as in {root: {optimizer: momentum, momentum: 0.9}}
compressor sparsification sparsity topk top_k quantization quantize compression_ratio
    what a sender compresses is compression, by sender, as in {worker: {method: top_k, fraction: 0.05}}
epochs num_epochs n_epochs epoch max_epochs global_epochs global_ep
    here it is train.iterations; one epoch of a worker with n samples is n / train.batch_size iterations
rounds num_rounds n_rounds round comm_rounds comm_round communication_rounds global_rounds max_rounds
    here it is train.iterations: the rounds times the global period of a case
steps num_steps max_steps total_steps iters max_iter num_iterations max_iterations n_iters
    here it is train.iterations, the steps that each worker takes in all
local_epochs local_ep e local_steps local_iterations tau h k local_updates global_period local_period g i p tau1 tau2
period periods aggregation_period sync_every
    here it is a case's period, in iterations: cases: [{name: P=5, period: 5}, {name: H-SGD, periods: [50, 5]}]; one
    epoch of a worker with n samples is n / train.batch_size iterations
batch bs b batchsize minibatch mini_batch mini_batch_size local_bs local_batch_size train_batch_size
    here it is train.batch_size
wd l2 l2_reg regularization
    here it is train.weight_decay
loss criterion loss_fn loss_function
    here it is train.loss: cross_entropy or squared, the same for all cases; as a target it is test_loss or train_loss
mu prox_mu fedprox_mu proximal_mu fedprox prox
    here it is train.proximal
scaffold control_variates drift_correction
    here it is train.correction: scaffold
algorithm strategy aggregator method fl_algorithm fedavg
    servers average, weighed as in averaging: {by: samples}; how often is a case's period or periods
clip grad_clip max_grad_norm gradient_clipping clip_norm max_norm
    here it is train.clip_norm, the longest that a worker's gradient may be
dropout dropout_rate drop_rate
    dropout in a network is the model's own (model.options, where it takes any); that workers sit out is
    train.participation
seed random_seed rng_seed manual_seed num_seeds repeats repetitions trials num_trials
    here it is a list, as in seeds: [1, 2, 3]
gpu gpus cuda device num_gpus use_gpu use_cuda gpu_id no_cuda
    it stands on the command line: --device cuda
threads num_threads n_jobs jobs
    it stands on the command line: --threads, --jobs
amp fp16 bf16 mixed_precision precision tf32
    it stands on the command line: --precision
num_workers n_workers workers clients num_clients n_clients num_users users n_users nodes num_nodes devices num_devices
servers num_servers edges num_edges edge_servers num_edge_servers groups num_groups group_size clusters
    nodes are counted in the topology, as in topology: {levels: [{name: worker, count: 10, uplink: near}]}
fraction frac client_fraction fraction_fit frac_clients c sample_rate sampling_rate participation_rate
clients_per_round num_clients_per_round users_per_round client_sampling
    here it is train.participation, the share of each group's workers that take part in a local period
step_prob p_step operating_rate worker_rate
    here it is train.step_probability, with which a worker takes its step in each iteration
latency delay ping rtt latency_ms delay_ms rtt_ms ping_ms bandwidth bw mbps bandwidth_mbps bandwidth_mbit throughput
upload_speed download_speed uplink_bandwidth downlink_bandwidth link_speed
    what a link costs is a profile, as in {rtt_s: 0.05}, or {latency_s: 0.01, bandwidth_bps: 1e8, model: raw}
jitter
    costs that vary are measured samples or a distribution, as in rtt_s: {distribution: lognormal, median: 0.05,
    sigma: 0.2}
packet_loss loss_rate drop_probability
    loss is not modelled; what it costs may be in measured samples of rtt_s
compute_time step_time time_per_step step_ms compute_s flops speed compute_speed
    what a step costs is a compute profile, as in compute: {step_s: 0.004}
non_iid noniid iid heterogeneity partition_method partitioner split data_split
    here it is data.partition: iid, by_label, shards, dirichlet (with data.alpha), natural, group_iid or group_non_iid
dirichlet_alpha dir_alpha beta dirichlet concentration
    here it is data.alpha, with data.partition: dirichlet
data_dir data_path dataset_path datadir root_dir data_root
    here it is data.root, or the environment variable HSGD_EMU_DATA
dataset_name
    here it is data.dataset
arch architecture network net backbone model_name
    here it is model: a name, or {name: mlp, hidden: [200]}
hidden_size hidden_dim hidden_units hidden_layers layers units width
    here it is model.hidden, of mlp, as in [200]
num_classes n_classes output_dim
    here it is model.num_outputs
out output output_dir out_dir save_dir log_dir results_dir outdir
    it stands on the command line: --out FOLDER
eval_every eval_interval eval_freq test_every test_freq test_interval evaluate_every log_interval
frequency_of_the_test
    here it is evaluation.every_iterations
target target_accuracy target_acc stop_accuracy accuracy goal threshold
    here it is targets: {test_accuracy: [0.8]}
early_stopping early_stop patience
    a trial may end when its targets are reached: train.until_targets: true
size_bytes model_size model_bytes message_size model_size_mb payload
    here it is message_bytes
"""
"""Words, and below them, indented, what is said of each."""

_SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainSpec,
    "data": DataSpec,
    "evaluation": EvaluationSpec,
    "averaging": AveragingSpec,
    "targets": TargetSpec,
    "model": ModelSpec,
}


def _read() -> dict[str, str]:
    found: dict[str, str] = {}
    words: list[str] = []
    for line in _TABLE.strip().splitlines():
        if line.startswith(" "):
            for word in words:
                found[word] = f"{found.get(word, '')} {line.strip()}".strip()
        else:
            words = [*words, *line.split()] if words and words[0] not in found else line.split()
    return found


_HINTS = _read()


def hint(key: str, known: Collection[str] = ()) -> str:
    """Return ``; ...`` with what is right here for a word of other tools, or for a key of another section; else ''.

    known: the keys that may stand there.
    """
    word = key.lower().replace("-", "_").replace(" ", "_")
    homes = [name for name, spec in _SECTIONS.items() if key in spec.model_fields and key != "name"]
    if homes:
        return f"; it stands inside {homes[0]}: {homes[0]}.{key}"
    said = _HINTS.get(word, "")
    own = next((name for name in known if said == f"here it is train.{name}"), None)
    return f"; here it is {own}" if own else f"; {said}" if said else ""
