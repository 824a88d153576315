"""The deck's texts in English. Formats of values: see `language.Language`."""

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # Everywhere
    "number": "{value:n}",
    "unlabelled": "unlabelled",
    "empty_label": "(empty)",
    "month": "{name:s} {year:s}",
    "month.1": "January",
    "month.2": "February",
    "month.3": "March",
    "month.4": "April",
    "month.5": "May",
    "month.6": "June",
    "month.7": "July",
    "month.8": "August",
    "month.9": "September",
    "month.10": "October",
    "month.11": "November",
    "month.12": "December",
    "section.problem": "Problem and data",
    "section.environment": "Big Data environment",
    "section.chain": "Processing chain",
    "section.demo": "Demonstration",
    "section.synthesis": "Synthesis and critical review",
    "footer": "Fruits! · {author:s} · {month:s}",
    "spoken": "Time: {minutes:t}, from {start:t} to {end:t}",
    "sources": "Versions that the figures come from: {versions:s}.",
    # Title
    "title.title": "Recognising fruit at scale",
    "title.subtitle": "Big Data processing in the cloud, in Europe, at a cost that is known",
    "title.alt": "Mosaic of photos of fruit: {labels:s}.",
    "title.notes": (
        "Hello, I am {author:s}. This is the first version of the Big Data architecture of "
        "Fruits!, which prepares the recognition of fruit from a photo. Outline: problem and data "
        "(3 min), the environment (6 min), the processing chain (6 min), a demonstration (2 min), "
        "synthesis and critical review (3 min)."
    ),
    # Problem
    "problem.title": "Fruits! wants to preserve the biodiversity of fruit",
    "problem.need": "The need",
    "problem.need.1": "Help growers to treat each species as it needs.",
    "problem.need.2": "First a mobile application: one photo, and the fruit is recognised.",
    "problem.need.3": "The volume of images will grow very fast: the work has to be spread.",
    "problem.goal.1": "A Big Data environment in the cloud",
    "problem.goal.1.how": "EMR, S3 and IAM of AWS; servers stay in the European Union (GDPR).",
    "problem.goal.2": "A PySpark chain",
    "problem.goal.2.how": (
        "Weights of a TensorFlow model are broadcast, then PCA reduces the dimension."
    ),
    "problem.goal.3": "Costs kept down",
    "problem.goal.3.how": "As few EMR instances as possible, and never for longer than needed.",
    "problem.deliverables": "Deliverables",
    "problem.deliverables.list": (
        "The PySpark notebook; data and PCA matrix in the cloud; this deck. Behind them, a tested "
        "pipeline of Dagster assets."
    ),
    "problem.notes": (
        "Fruits! is a young AgriTech company. The mobile application will tell the public about "
        "the biodiversity of fruit, and the first version of the architecture stands behind it. "
        "The starting point is the notebook of an intern: no PCA, no error handling, a cluster "
        "made by hand. Three objectives: a cloud environment that respects the GDPR, a PySpark "
        "chain with PCA and broadcast weights, costs kept down."
    ),
    # Data
    "data.title": "The data: {images:n} photos, {classes:n} classes, {kind:s}",
    "data.kind.drawn": "drawn by the project",
    "data.kind.fruits_360": "of Fruits-360",
    "data.kind.own": "of the chosen source",
    "data.images": "photos, of {files:n} files found",
    "data.classes": "classes, as folders say",
    "data.classes.unlabelled": "classes; {count:n} photos unlabelled",
    "data.size": "{width:n} \N{MULTIPLICATION SIGN} {height:n}",
    "data.size.what": "pixels, all photos",
    "data.size.median": "≈ {width:n} \N{MULTIPLICATION SIGN} {height:n}",
    "data.size.median.what": "pixels, medians: sizes vary",
    "data.megabytes": "{value:f1} MB",
    "data.megabytes.what": "in all, as found",
    "data.chart": "Photos per class",
    "data.chart.alt": "Bars: number of photos of {shown:n} classes of {all:n}, by split.",
    "data.no_split": "no split",
    "data.others": (
        "Other classes: {classes:n}, with {images:n} photos, from {least:n} to {most:n} per class."
    ),
    "data.others.even": "Other classes: {classes:n}, with {images:n} photos, {most:n} per class.",
    "data.sheet": "A sample of the photos",
    "data.notes.drawn": (
        "The {images:n} photos of {classes:n} classes are the embedded sample: fruit drawn by a "
        "program, free of rights, so that everything runs without a download. They are no real "
        "photos: their scores say nothing about the field. The same chain processes real photos "
        "once a single variable, the source, is changed."
    ),
    "data.notes.fruits_360": (
        "The {images:n} photos of {classes:n} classes come from Fruits-360: each fruit turns "
        "before the camera, its background erased to white. Classes are balanced and photos very "
        "regular: an easy case, to which I come back in the critical review."
    ),
    "data.notes.own": (
        "The {images:n} photos of {classes:n} classes come from the configured source. The label "
        "is the parent folder, the split (Training, Test, Validation) the first folder named so. "
        "Show how balanced the classes are."
    ),
    # Architecture
    "architecture.title": "Four roles, each replaced without the others",
    "architecture.eu": "European Union: {region:s}",
    "architecture.region.any": "one of the {count:n} regions of AWS that lie there",
    "architecture.photos": "Photos",
    "architecture.photos.what": "S3 photos/ or a folder: read only",
    "architecture.weights": "Weights",
    "architecture.weights.what": "MobileNetV2, converted once",
    "architecture.dagster": "Dagster",
    "architecture.dagster.what": "says what: assets, checks, sensors, history",
    "architecture.cluster": "Spark target: EMR, or local",
    "architecture.primary": "Primary",
    "architecture.primary.what": "driver",
    "architecture.core": "Core",
    "architecture.core.what": "executor",
    "architecture.task": "Task",
    "architecture.task.what": "Spot",
    "architecture.lake": "S3 lake",
    "architecture.versions": "Versions",
    "architecture.versions.what": "immutable: to publish is one more commit in the Delta log",
    "architecture.data": "Data",
    "architecture.data.what": (
        "Delta tables in Parquet, read and written as Arrow by the workers; Spark, DuckDB, Polars "
        "and pandas open them"
    ),
    "architecture.lake.bucket": (
        "The figures of this deck come from a lake in S3, region {region:s}, as the bucket itself "
        "answered."
    ),
    "architecture.lake.folder": (
        "The figures of this deck come from a lake in a local folder: same assets, formats and "
        "tests as in S3."
    ),
    "architecture.notes": (
        "Assets say what, the lake says which version, the Spark target says on which machines, "
        "transforms say how. Going from a laptop to EMR changes one variable and no line of code. "
        "Data go from the lake to the worker that needs them, as Arrow: neither the JVM nor the "
        "driver holds pixels. The lake is made of Delta tables: Parquet files and a log, in which "
        "every publish is one commit. One can go back to a version before, and other tools read "
        "the lake without this code. IAM gives everyone what is strictly needed, KMS encrypts."
    ),
    # Services
    "services.title": "EMR computes, S3 keeps, IAM allows",
    "services.emr": "EMR",
    "services.emr.role": "Machines with Spark, for as long as a run takes",
    "services.emr.1": "A transient cluster, sized to the photos that are left to do",
    "services.emr.2": "Graviton; Spot for all but two machines",
    "services.emr.3": "Private subnets, neither SSH nor Internet",
    "services.emr.4": "An end for sure: run, sensors, deadline, idle timeout",
    "services.s3": "S3",
    "services.s3.role": "The source, the lake and the messages",
    "services.s3.1": "64 requests in flight, on condition of the ETag listed",
    "services.s3.2": "An object is there whole or not at all",
    "services.s3.3": "Published by a conditional write (If-None-Match)",
    "services.s3.4": "Versioned, encrypted, no public access, no replication",
    "services.iam": "IAM (and KMS)",
    "services.iam.role": "Who may do what, and no more",
    "services.iam.1": "Service role: EMR starts its machines",
    "services.iam.2": "Node role: read photos/, write lake/",
    "services.iam.3": "Orchestrator: start and end the clusters of this stack",
    "services.iam.4": "One KMS key, rotated yearly; any other region is denied",
    "services.tested": (
        "All of it is a CloudFormation template, tested on an emulator that really runs "
        "spark-submit. On AWS itself: no billed run is known to this day."
    ),
    "services.ran": (
        "All of it is a CloudFormation template. Runs that made the data of this deck were on EMR."
    ),
    "services.notes": (
        "EMR gives the machines, S3 keeps all that lasts, IAM bounds each role. make deploy makes "
        "buckets, key, roles and network; make emr-check says what is missing before the first "
        "run, and changes and costs nothing. The cluster ends with its run, whatever happens: "
        "four independent mechanisms see to it."
    ),
    # GDPR
    "gdpr.title": "GDPR: nothing leaves the Union, everything can be erased",
    "gdpr.place": "Place",
    "gdpr.place.what": (
        "{regions:n} regions of AWS can be set, all in the EU (neither London nor Zurich). Each "
        "bucket confirms its own before the first byte moves."
    ),
    "gdpr.minimal": "Minimisation",
    "gdpr.minimal.what": (
        "EXIF, GPS, XMP, IPTC and comments are removed from photos without touching a pixel."
    ),
    "gdpr.encryption": "Encryption",
    "gdpr.encryption.what": (
        "At rest with the stack's KMS key, disks included; in transit TLS 1.2 or later."
    ),
    "gdpr.access": "Access",
    "gdpr.access.what": (
        "Least privilege, no public access, no other account; no path and no label in the "
        "arguments of steps."
    ),
    "gdpr.retention": "Retention",
    "gdpr.retention.what": "3 versions per table; old versions of objects: 30 days; logs: 90 days.",
    "gdpr.erasure": "Erasure (art. 17)",
    "gdpr.erasure.what": (
        "A job erases a photo and all that was made from it, PCA included, from every version."
    ),
    "gdpr.operator": (
        "Left to the operator: legal basis, telling the growers, record of processing (art. 30), "
        "processing agreement with AWS, people who are seen in photos."
    ),
    "gdpr.notes": (
        "A photo of fruit may tell where, when and with which device it was taken, and show hands "
        "or faces. The region is checked before the first byte: to begin with eu- is not enough. "
        "Erasure fits the PCA again, for the erased photos had their part in it; tests search "
        "every byte of every file. A region in the EU is run by a company outside it: that is for "
        "the operator to judge. This is no legal advice."
    ),
    # Costs
    "costs.title": "Costs: a cluster for {images:n} photos is planned at €{eur:f2}",
    "costs.plan": "Planned (not billed): one cluster per run",
    "costs.plan.photos": "Photos",
    "costs.plan.hours": "CPU",
    "costs.plan.cores": "Cluster",
    "costs.plan.minutes": "Time",
    "costs.plan.eur": "Price",
    "costs.core_hours": "{hours:f1} h",
    "costs.core_seconds": "{seconds:n} s",
    "costs.core_minutes": "{minutes:f1} min",
    "costs.cores": "{cores:n} cores",
    "costs.cores.spot": "{cores:n} cores, {spot:n} on Spot",
    "costs.minutes": "{minutes:f0} min",
    "costs.eur": "€{eur:f2}",
    "costs.plan.region": (
        "Region {region:s}, without tax. The first line is the source of this deck, the others "
        "suppose more photos of that size."
    ),
    "costs.plan.assumed": (
        "Computed from measured rates (MobileNetV2 1.0, 224 px) and a price table. Assumed: 6 min "
        "to start, Spot at half the price, speed of a vCPU, EMR's charge, exchange rate."
    ),
    "costs.published": (
        "For comparison, figures published by other projects: 67,692 images in 83 min, a bill of "
        "17.39 USD."
    ),
    "costs.bill": "cost of the clusters of these runs, from start to end, without tax",
    "costs.bill.missing": "Billed: not measured",
    "costs.bill.missing.what": (
        "No run on EMR is known for these data. FRUITS_SPARK=emr make run writes it into the tags "
        "of the run."
    ),
    "costs.levers": "How the price stays low",
    "costs.lever.1": "The cluster lives as long as its run",
    "costs.lever.2": "Only what is new is computed",
    "costs.lever.3": "Spot for all but two machines, Graviton",
    "costs.lever.4": "A ceiling: above it, nothing starts",
    "costs.lever.5": "Below some 100,000 photos, a laptop will do",
    "costs.notes": (
        "These amounts are a plan for the region {region:s}, no bill: measured rates times a "
        "price table, with the assumptions shown. The plan is shown before anything starts and can "
        "be capped (FRUITS_EMR_MAX_COST_EUR); after a run on EMR, the real cost of the machines "
        "is in Dagster. For few photos, nearly all of the price is the start of the cluster."
    ),
    # Assets
    "assets.title": "The chain: six assets, each a question and its answer",
    "assets.source": "Source",
    "assets.source.what": "photos in folders",
    "assets.weights": "Weights",
    "assets.weights.what": "a Keras file",
    "assets.shown": "Deliverables",
    "assets.shown.what": "notebook, deck, gallery",
    "assets.files": "files rejected: {count:n}",
    "assets.photos": "{count:n} photos",
    "assets.model": "alpha {alpha:f2}, {size:n} px",
    "assets.features": "{count:n} per photo",
    "assets.components": "{count:n} components",
    "assets.projected": "{count:n} per photo",
    "assets.made": "{size:f1} MB in {seconds:f1} s",
    "assets.made.small": "{size:f1} kB in {seconds:f1} s",
    "assets.address": "One question, one answer",
    "assets.address.what": (
        "Every version bears the fingerprint of code, parameters and inputs: what is done is "
        "reused, what was interrupted goes on, nothing is computed twice."
    ),
    "assets.checks": "Twelve checks",
    "assets.checks.what": (
        "No file lost, no image in two splits, sound labels and classes, equal to Keras, "
        "complete vectors, orthonormal components, variance, recognition."
    ),
    "assets.notes": (
        "Read the graph from left to right. raw_images and rejected_images: every file of the "
        "source is in one of the two tables. model_weights: the network, converted once. "
        "features: what the network sees. pca_model, then pca_features: the reduced dimension. "
        "Sizes and seconds are those that the Delta log has of the current versions; an increment "
        "counts only what was new."
    ),
    # Ingest
    "ingest.title": "Ingest: no file lost, {rejected:n} of {files:n} set aside",
    "ingest.title.none": "Ingest: {files:n} files, none rejected, none lost",
    "ingest.found": "files found",
    "ingest.examined": "Examined",
    "ingest.examined.what": "content, limits, decoded in a child process",
    "ingest.accepted": "raw_images",
    "ingest.rejected": "rejected_images",
    "ingest.rules": "What is kept to",
    "ingest.rule.1": "Every file ends in one table and one only: never a zero vector.",
    "ingest.rule.2": "Formats are recognised by content: JPEG, PNG, HEIC, AVIF, WebP, TIFF…",
    "ingest.rule.3": "An image that kills its decoder costs that process only.",
    "ingest.none": "None of the {files:n} files is rejected",
    "ingest.none.what": "If some were, each would have one of these reasons, and advice:",
    "ingest.reasons": "Rejected files, by reason",
    "ingest.reasons.alt": "Bars: number of rejected files by reason.",
    "ingest.examples": "For example",
    "ingest.notes": (
        "The intern's notebook stops at the first image that cannot be read, and Spark's "
        "binaryFile passes over empty files in silence. Here every file is accounted for: a check "
        "compares the listing of the source with both tables. Above a share of rejected files (5 "
        "% by default) the run fails and says why."
    ),
    "reason.empty": "empty file",
    "reason.not_an_image": "not an image",
    "reason.unsupported_format": "not supported",
    "reason.truncated": "truncated",
    "reason.corrupt": "corrupt",
    "reason.too_large": "too large",
    "reason.unreadable": "unreadable (decoder)",
    # Broadcast
    "broadcast.title": "Broadcast: one model per process, not per task",
    "broadcast.driver": "Driver",
    "broadcast.intern": "The intern's notebook",
    "broadcast.intern.driver": "broadcast(model.get_weights())",
    "broadcast.task": "Task {number:n}",
    "broadcast.task.last": "… 20",
    "broadcast.task.builds": "builds the model",
    "broadcast.intern.what": (
        "Each task builds the whole network again, then sets the weights it received: 20 "
        "partitions, 20 times, with TensorFlow on every machine."
    ),
    "broadcast.project": "This project",
    "broadcast.project.driver": "broadcast(model.tflite): {megabytes:f1} MB",
    "broadcast.worker": "Process {number:n}",
    "broadcast.worker.model": "1 model, kept",
    "broadcast.worker.1": "tasks 1, 3, 5…",
    "broadcast.worker.2": "tasks 2, 4, 6…",
    "broadcast.project.what": (
        "Graph and weights are one file: the worker opens it and computes. Nothing to build, "
        "nothing to download, no TensorFlow on the cluster."
    ),
    "broadcast.megabytes": "{megabytes:f1} MB",
    "broadcast.file": "sent once to each machine: graph and weights, as float32",
    "broadcast.error": "{error:s}",
    "broadcast.keras": "relative distance to the features of Keras (L2 norm)",
    "broadcast.features": "features per photo, without the classification layer",
    "broadcast.notes": (
        "The intern's broadcast is real but of little use: each task builds the whole model "
        "before it sets the weights. Here the TensorFlow model is converted once to LiteRT on the "
        "Dagster host, compared with Keras, and broadcast by sparkContext.broadcast; each Python "
        "process of Spark opens it once and keeps it from task to task."
    ),
    # PCA
    "pca.title": "PCA: {components:n} of {features:n} components keep {kept:p1} of the variance",
    "pca.curve": "Cumulative variance",
    "pca.cumulative": "cumulative variance",
    "pca.target": "target: {share:p0}",
    "pca.chosen": "k = {components:n}",
    "pca.components": "number of components",
    "pca.curve.alt": "Curve of the cumulative variance: {components:n} components keep {kept:p1}.",
    "pca.cloud": "The first two components, {shown:n} photos",
    "pca.cloud.some": "The first two components: {named:n} classes far apart",
    "pca.others": "others",
    "pca.axis": "component {number:n} ({share:p1})",
    "pca.cloud.alt": "Cloud of the photos in the plane of the first two components, by class.",
    "pca.all": "all",
    "pca.how": (
        "Fitted in one distributed pass ({seconds:f1} s) on {images:n} photos ({split:s}): a Gram "
        "matrix per partition, added up, then eigenvectors. Data are centred; equal to "
        "scikit-learn to 1e-5."
    ),
    "pca.notes": (
        "The target is a share of the variance; the number of components follows from it. The PCA "
        "is fitted on the training split where there is one, then applied to all: nothing of the "
        "test split gets into it. Spark ML's does not centre when it projects and knows no target "
        "of variance. In the cloud, some classes already part on two axes; the others part on "
        "further components."
    ),
    # Recognition
    "recognition.title": "{share:p1} of {test:n} test photos are recognised",
    "recognition.title.missing": "Recognition: still to be measured",
    "recognition.missing": "Not measured",
    "recognition.missing.what": (
        "It takes labelled photos in folders Training and Test, and the check “recognition” on "
        "these data: make run runs it."
    ),
    "recognition.components": "{count:n} components",
    "recognition.features": "{count:n} features",
    "recognition.accuracy": "accuracy",
    "recognition.share": "{share:p1}",
    "recognition.alt": (
        "Bars: accuracy of {components:p1} on the components, {features:p1} on all features."
    ),
    "recognition.how": "How it is measured",
    "recognition.how.what": (
        "Nearest neighbour: each test photo gets the label of the nearest training photo. No "
        "classifier is trained: the difference of the two bars is the price of the reduction."
    ),
    "recognition.care": "To be read with care",
    "recognition.care.drawn": (
        "Photos drawn by a program, weights trained on such drawings: this score shows that the "
        "chain works, not that it recognises real fruit."
    ),
    "recognition.care.fruits_360": (
        "Fruits-360 films one fruit that turns: Training and Test show the same individuals. A "
        "fruit that was never seen would be recognised less often."
    ),
    "recognition.care.own": (
        "If the same fruit was photographed for Training and for Test, the score is too good: "
        "part the splits by fruit, orchard or day."
    ),
    "recognition.care.none": (
        "A score would only mean something with splits parted by fruit, orchard or day: else one "
        "fruit would be on both sides."
    ),
    "recognition.notes": (
        "The question is what the reduction costs: nearest neighbours on the components and on "
        "all features are compared, with the same photos. This is not the model of the "
        "application, but a simple bound without training. Say the limit of the data at once."
    ),
    # Demonstration
    "demonstration.title": "Demonstration: from a photo to its components",
    "demonstration.1": "The asset graph",
    "demonstration.1.command": "make ui",
    "demonstration.1.seen": (
        "Lineage, versions, checks; thumbnails and the PCA's curve in the metadata."
    ),
    "demonstration.2": "The same run: nothing is computed again",
    "demonstration.2.command": "make run",
    "demonstration.2.seen": "“reused version” at every step, within seconds.",
    "demonstration.3": "One more photo: it alone is processed",
    "demonstration.3.command": "cp kiwi.jpg photos/Kiwi/",
    "demonstration.3.seen": (
        "“1 of … files are new”, then make run: the PCA stays while photos move little."
    ),
    "demonstration.4": "A file that is no photo",
    "demonstration.4.command": "touch photos/Kiwi/empty.jpg",
    "demonstration.4.seen": "A row in rejected_images: “empty file”, and the run goes on.",
    "demonstration.notes": (
        "30 seconds for each step; the source is a folder, photos/ (FRUITS_SOURCE). 1: make ui, "
        "show the graph, open raw_images (thumbnails) and pca_model (curve). 2: Materialize all: "
        "versions are reused. 3: add a photo, run again: one inference. 4: add an empty file, "
        "show rejected_images. If network or screen fails: make demo on the embedded sample, and "
        "the pictures of the README."
    ),
    # Throughput
    "throughput.title": "Throughput: {times:f1} times the intern's notebook",
    "throughput.title.missing": "Throughput: to be compared with the intern's notebook",
    "throughput.missing": "Not measured: run “make bench”",
    "throughput.missing.what": (
        "The comparison with the intern's notebook, on the same machine and photos, is read from "
        "artifacts/benchmark.json, which “make bench” writes. Then make this deck again."
    ),
    "throughput.chart": "Images per second, {photos:n} photos, same machine",
    "throughput.chart.quick": "Images per second: only {photos:n} photos, fixed costs dominate",
    "throughput.rate": "images per second",
    "throughput.label": "{rate:n}/s",
    "throughput.bar": "{name:s} ({megabytes:n} MB per worker)",
    "throughput.intern": "intern's notebook",
    "throughput.predict_batch": "Spark's predict_batch_udf",
    "throughput.project": "this project",
    "throughput.ceiling": "ceiling: bare processes",
    "throughput.alt": "Bars: images per second; this project does {times:f1} times the notebook.",
    "throughput.run": "In this lake",
    "throughput.run.what": (
        "{count:n} inferences at {rate:n} images/s, measured in the run that made these features."
    ),
    "throughput.why": "Why",
    "throughput.why.what": (
        "LiteRT, one image at a time, one model per process; no pixel in the JVM or in a shuffle."
    ),
    "throughput.published": "Elsewhere",
    "throughput.published.what": (
        "Published by other projects: 67,692 images in 83 min; at best 103,993 in about 13 min "
        "(133 images/s). Other machines: not comparable."
    ),
    "throughput.notes": (
        "Contenders take turns on the same machine, in processes of their own; the median counts. "
        "The ceiling is what bare processes do that only decode and infer. Figures published "
        "elsewhere come from other machines and are quoted as such. With few photos fixed costs "
        "dominate and the ratio is another: make bench-full measures at the sizes that count."
    ),
    # Reliability
    "reliability.title": "What fails, and how: nothing lost, nothing bent",
    "reliability.fault": "Fault",
    "reliability.kept": "What happens",
    "reliability.killed": "Process killed, no power",
    "reliability.killed.what": (
        "A file is there whole or not at all; the same command goes on. Lost: 30 s at most."
    ),
    "reliability.worker": "Worker or Spot machine lost",
    "reliability.worker.what": "Spark does its tasks elsewhere, up to four times.",
    "reliability.image": "Image that kills its decoder",
    "reliability.image.what": "It is rejected as unreadable; the run goes on.",
    "reliability.store": "S3 slow, 503, half an object",
    "reliability.store.what": "Repeated with growing pauses; lengths and checksums are compared.",
    "reliability.disk": "Disk full, permission gone",
    "reliability.disk.what": (
        "The run fails with a sentence that says what to do; nothing is published."
    ),
    "reliability.twins": "Two runs at once",
    "reliability.twins.what": "One publishes, the other says so; its work is not lost.",
    "reliability.damage": "Damaged file of the lake",
    "reliability.damage.what": "Seen when opened or read; make repair makes only what is missing.",
    "reliability.tried": (
        "“make faults” injects these faults into real runs, runs the same command again, and "
        "compares the tables, row by row, with those of an undisturbed run."
    ),
    "reliability.notes": (
        "A reader sees the old version or the new one, whole. Two known gaps: a file that was "
        "replaced and then put back with its old date stays rejected until the source changes; "
        "the commits of the Delta log have no checksum."
    ),
    # Limits
    "limits.title": "Limits, next steps and sources",
    "limits.limits": "Limits",
    "limits.data.drawn": "Drawn photos, not real ones: scores only speak of the chain.",
    "limits.data.fruits_360": (
        "Leakage: Training and Test show the same fruit, filmed in rotation; the score is too good."
    ),
    "limits.data.own": (
        "Not verified: the same fruit may be in Training and in Test, at another angle."
    ),
    "limits.white": (
        "White background on {share:p0} of thumbnails: a market or an orchard is harder."
    ),
    "limits.scenes": "Backgrounds vary: the network may see the scene rather than the fruit.",
    "limits.duplicates": (
        "Identical contents in two splits: {count:n}; near twins are not looked for."
    ),
    "limits.no_splits": "No separate test split: no accuracy can be claimed.",
    "limits.scale": "{images:n} photos here: scaling up is planned by arithmetic, not observed.",
    "limits.cloud": (
        "EMR: tried on a genuine YARN and an emulator; prices, Spot and delays are still to be "
        "seen on AWS."
    ),
    "limits.cloud.ran": "EMR: a run is not a month; Spot prices and capacity vary.",
    "limits.next": "Next steps",
    "limits.next.1": "First run on AWS, 100 photos, cost capped",
    "limits.next.2": "Real photos of growers, splits parted by fruit",
    "limits.next.3": "A classifier on the components, followed by class",
    "limits.next.4": "A trial on a million photos, then an observed price",
    "limits.next.5": "Components of a photo on demand, for the application",
    "limits.sources": "Sources and licences",
    "limits.sources.drawn": (
        "Photos: drawn by the project, free of rights; weights: trained by the project on such "
        "drawings."
    ),
    "limits.sources.fruits_360": (
        "Photos: named as those of Fruits-360 (Mureșan and Oltean, 2018), CC BY-SA 4.0."
    ),
    "limits.sources.own": (
        "Photos: of the configured source; who shows them must have the right to."
    ),
    "limits.sources.model": (
        "Network: MobileNetV2 (Sandler et al., 2018), by Keras Applications, Apache 2.0. Colours: "
        "Okabe and Ito."
    ),
    "limits.sources.libraries": "Free software: {versions:s}.",
    "limits.notes": (
        "Say the limits before they are asked for. The score is too good as long as the same "
        "fruit is in both splits and backgrounds are white. AWS has billed nothing as long as no "
        "run took place there: what is still to be seen is listed in docs/aws.md. Then: real "
        "photos, a classifier, scaling up observed."
    ),
}
