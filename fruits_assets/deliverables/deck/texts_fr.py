"""The deck's texts in French. Formats of values: see `language.Language`."""

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # Everywhere
    "number": "{value:n}",
    "unlabelled": "sans étiquette",
    "empty_label": "(vide)",
    "month": "{name:s} {year:s}",
    "month.1": "janvier",
    "month.2": "février",
    "month.3": "mars",
    "month.4": "avril",
    "month.5": "mai",
    "month.6": "juin",
    "month.7": "juillet",
    "month.8": "août",
    "month.9": "septembre",
    "month.10": "octobre",
    "month.11": "novembre",
    "month.12": "décembre",
    "section.problem": "Problème et données",
    "section.environment": "Environnement Big Data",
    "section.chain": "Chaîne de traitement",
    "section.demo": "Démonstration",
    "section.synthesis": "Synthèse et regard critique",
    "footer": "Fruits! · {author:s} · {month:s}",
    "spoken": "Durée : {minutes:t}, de {start:t} à {end:t}",
    "sources": "Versions dont viennent les chiffres : {versions:s}.",
    # Title
    "title.title": "Reconnaître les fruits à grande échelle",
    "title.subtitle": "Un traitement Big Data dans le cloud, en Europe, à coût maîtrisé",
    "title.alt": "Mosaïque de photos de fruits : {labels:s}.",
    "title.notes": (
        "Bonjour, je suis {author:s}. Je présente la première version de l'architecture Big Data "
        "de Fruits!, qui prépare la reconnaissance de fruits à partir d'une photo. Plan : le "
        "problème et les données (3 min), l'environnement (6 min), la chaîne de traitement (6 "
        "min), une démonstration (2 min), la synthèse et un regard critique (3 min)."
    ),
    # Problem
    "problem.title": "Fruits! veut préserver la biodiversité des fruits",
    "problem.need": "Le besoin",
    "problem.need.1": "Aider les producteurs à traiter chaque espèce comme elle le demande.",
    "problem.need.2": "D'abord une application mobile : une photo, et le fruit est reconnu.",
    "problem.need.3": "Le volume d'images va croître très vite : le traitement doit se répartir.",
    "problem.goal.1": "Un environnement Big Data dans le cloud",
    "problem.goal.1.how": (
        "EMR, S3 et IAM d'AWS ; les serveurs restent dans l'Union européenne (RGPD)."
    ),
    "problem.goal.2": "Une chaîne PySpark",
    "problem.goal.2.how": (
        "Diffusion des poids d'un modèle TensorFlow, puis réduction de dimension par ACP."
    ),
    "problem.goal.3": "Des coûts maîtrisés",
    "problem.goal.3.how": (
        "Le moins possible d'instances EMR, et jamais plus longtemps qu'il ne faut."
    ),
    "problem.deliverables": "Livrables",
    "problem.deliverables.list": (
        "Le notebook PySpark ; les données et la matrice de l'ACP dans le cloud ; ce diaporama. "
        "Derrière eux, un pipeline d'assets Dagster, testé."
    ),
    "problem.notes": (
        "Fruits! est une jeune entreprise de l'AgriTech. L'application mobile fera connaître la "
        "biodiversité des fruits au public et posera la première version de l'architecture. Le "
        "point de départ est le notebook d'un stagiaire : pas d'ACP, pas de traitement d'erreur, "
        "un cluster créé à la main. Trois objectifs : un environnement dans le cloud conforme au "
        "RGPD, une chaîne PySpark avec ACP et diffusion des poids, des coûts maîtrisés."
    ),
    # Data
    "data.title": "Les données : {images:n} photos, {classes:n} classes, {kind:s}",
    "data.kind.drawn": "dessinées par le projet",
    "data.kind.fruits_360": "de la base Fruits-360",
    "data.kind.own": "de la source choisie",
    "data.images": "photos, de {files:n} fichiers trouvés",
    "data.classes": "classes, d'après les dossiers",
    "data.classes.unlabelled": "classes ; {count:n} photos sans étiquette",
    "data.size": "{width:n} \N{MULTIPLICATION SIGN} {height:n}",
    "data.size.what": "pixels, pour toutes les photos",
    "data.size.median": "≈ {width:n} \N{MULTIPLICATION SIGN} {height:n}",
    "data.size.median.what": "pixels, médianes : tailles variées",
    "data.megabytes": "{value:f1} Mo",
    "data.megabytes.what": "en tout, tels que trouvés",
    "data.chart": "Photos par classe",
    "data.chart.alt": "Barres : nombre de photos de {shown:n} classes sur {all:n}, par jeu.",
    "data.no_split": "sans jeu",
    "data.others": (
        "Autres classes : {classes:n}, avec {images:n} photos, de {least:n} à {most:n} par classe."
    ),
    "data.others.even": (
        "Autres classes : {classes:n}, avec {images:n} photos, {most:n} par classe."
    ),
    "data.sheet": "Échantillon de photos",
    "data.notes.drawn": (
        "Les {images:n} photos de {classes:n} classes sont l'échantillon embarqué : des fruits "
        "dessinés par un programme, libres de droits, qui permettent de tout exécuter sans rien "
        "télécharger. Ce ne sont pas de vraies photos : leurs scores ne disent rien du terrain. "
        "La même chaîne traite de vraies photos en changeant une seule variable, la source."
    ),
    "data.notes.fruits_360": (
        "Les {images:n} photos de {classes:n} classes viennent de Fruits-360 : chaque fruit "
        "tourne devant la caméra sur un fond effacé en blanc. Les classes sont équilibrées et les "
        "photos très régulières : c'est un cas facile, j'y reviens dans le regard critique."
    ),
    "data.notes.own": (
        "Les {images:n} photos de {classes:n} classes viennent de la source configurée. "
        "L'étiquette est le dossier parent, le jeu (Training, Test, Validation) est le premier "
        "dossier nommé ainsi. Montrer l'équilibre ou le déséquilibre des classes."
    ),
    # Architecture
    "architecture.title": "Quatre rôles qui changent l'un sans l'autre",
    "architecture.eu": "Union européenne : {region:s}",
    "architecture.region.any": "une des {count:n} régions d'AWS qui s'y trouvent",
    "architecture.photos": "Photos",
    "architecture.photos.what": "S3 photos/ ou un dossier : lecture seule",
    "architecture.weights": "Poids",
    "architecture.weights.what": "MobileNetV2, convertis une seule fois",
    "architecture.dagster": "Dagster",
    "architecture.dagster.what": "dit quoi : assets, contrôles, capteurs, historique",
    "architecture.cluster": "Cible Spark : EMR, ou local",
    "architecture.primary": "Primaire",
    "architecture.primary.what": "driver",
    "architecture.core": "Cœur",
    "architecture.core.what": "exécuteur",
    "architecture.task": "Tâches",
    "architecture.task.what": "Spot",
    "architecture.lake": "Lac S3",
    "architecture.versions": "Versions",
    "architecture.versions.what": "immuables : publier, c'est un commit de plus au journal Delta",
    "architecture.data": "Données",
    "architecture.data.what": (
        "tables Delta en Parquet, lues et écrites en Arrow par les workers ; Spark, DuckDB, Polars "
        "et pandas les ouvrent"
    ),
    "architecture.lake.bucket": (
        "Les chiffres de ce diaporama viennent d'un lac dans S3, région {region:s}, vérifiée "
        "auprès du compartiment."
    ),
    "architecture.lake.folder": (
        "Les chiffres de ce diaporama viennent d'un lac dans un dossier local : mêmes assets, "
        "mêmes formats et mêmes tests que dans S3."
    ),
    "architecture.notes": (
        "Les assets disent quoi, le lac dit quelle version, la cible Spark dit sur quelles "
        "machines, les transformations disent comment. Passer du portable à EMR change une "
        "variable et aucune ligne de code. Les données passent du lac au worker qui en a besoin, "
        "en Arrow : ni la JVM ni le driver ne tiennent de pixels. Le lac est fait de tables Delta "
        ": des fichiers Parquet et un journal, où chaque publication est un commit. On revient à "
        "une version d'avant, et d'autres outils lisent le lac sans ce code. IAM donne à chacun "
        "le strict nécessaire, KMS chiffre."
    ),
    # Services
    "services.title": "EMR calcule, S3 conserve, IAM autorise",
    "services.emr": "EMR",
    "services.emr.role": "Des machines Spark, le temps d'une exécution",
    "services.emr.1": "Un cluster éphémère, dimensionné d'après les photos qui restent à traiter",
    "services.emr.2": "Graviton ; Spot pour tout sauf deux machines",
    "services.emr.3": "Sous-réseaux privés, ni SSH ni Internet",
    "services.emr.4": "Fin garantie : exécution, capteurs, délai, inactivité",
    "services.s3": "S3",
    "services.s3.role": "La source, le lac et les messages",
    "services.s3.1": "Lecture à 64 requêtes de front, conditionnée à l'ETag listé",
    "services.s3.2": "Un objet est là en entier ou pas du tout",
    "services.s3.3": "Publication par écriture conditionnelle (If-None-Match)",
    "services.s3.4": "Versionné, chiffré, sans accès public ni réplication",
    "services.iam": "IAM (et KMS)",
    "services.iam.role": "Qui peut faire quoi, et rien de plus",
    "services.iam.1": "Rôle de service : EMR démarre ses machines",
    "services.iam.2": "Rôle des nœuds : lire photos/, écrire lake/",
    "services.iam.3": "Orchestrateur : lancer et arrêter les clusters de cette pile",
    "services.iam.4": "Une clé KMS à rotation annuelle ; toute autre région refusée",
    "services.tested": (
        "Le tout est décrit par un modèle CloudFormation et testé sur un émulateur qui exécute "
        "vraiment spark-submit. Sur AWS lui-même : aucune exécution facturée connue à ce jour."
    ),
    "services.ran": (
        "Le tout est décrit par un modèle CloudFormation. Des exécutions qui ont fait les données "
        "de ce diaporama ont eu lieu sur EMR."
    ),
    "services.notes": (
        "EMR fournit les machines, S3 garde tout ce qui dure, IAM limite chaque rôle. make deploy "
        "crée les compartiments, la clé, les rôles et le réseau ; make emr-check dit ce qui "
        "manque avant la première exécution, sans rien changer ni rien coûter. Le cluster prend "
        "fin avec son exécution, quoi qu'il arrive : quatre mécanismes indépendants y veillent."
    ),
    # GDPR
    "gdpr.title": "RGPD : rien ne quitte l'Union, tout peut être effacé",
    "gdpr.place": "Lieu",
    "gdpr.place.what": (
        "{regions:n} régions d'AWS possibles, toutes dans l'UE (ni Londres ni Zurich). Chaque "
        "compartiment confirme la sienne avant le premier octet."
    ),
    "gdpr.minimal": "Minimisation",
    "gdpr.minimal.what": (
        "EXIF, GPS, XMP, IPTC et commentaires sont retirés des photos sans toucher un pixel."
    ),
    "gdpr.encryption": "Chiffrement",
    "gdpr.encryption.what": (
        "Au repos par la clé KMS de la pile, disques compris ; en transit, TLS 1.2 ou plus."
    ),
    "gdpr.access": "Accès",
    "gdpr.access.what": (
        "Moindre privilège, aucun accès public, aucun autre compte ; ni chemin ni étiquette dans "
        "les arguments des étapes."
    ),
    "gdpr.retention": "Conservation",
    "gdpr.retention.what": (
        "3 versions par table ; anciennes versions d'objets : 30 jours ; journaux : 90 jours."
    ),
    "gdpr.erasure": "Effacement (art. 17)",
    "gdpr.erasure.what": (
        "Un job efface une photo et tout ce qui en découle, ACP comprise, de toutes les versions."
    ),
    "gdpr.operator": (
        "Reste à l'exploitant : base légale et information des producteurs, registre des "
        "traitements (art. 30), contrat de sous-traitance avec AWS, personnes visibles sur les "
        "photos."
    ),
    "gdpr.notes": (
        "Une photo de fruit peut dire où, quand et avec quel appareil elle a été prise, et "
        "montrer des mains ou des visages. La garde de région se fait avant le premier octet : "
        "commencer par eu- ne suffit pas. L'effacement réajuste l'ACP, car les photos effacées y "
        "avaient leur part ; des tests fouillent chaque fichier, octet par octet. Une région de "
        "l'UE est exploitée par une société hors de l'UE : c'est à l'exploitant d'en juger. Ceci "
        "n'est pas un avis juridique."
    ),
    # Costs
    "costs.title": "Coûts : un cluster pour {images:n} photos est prévu à {eur:f2} €",
    "costs.plan": "Prévu (pas facturé) : un cluster par exécution",
    "costs.plan.photos": "Photos",
    "costs.plan.hours": "CPU",
    "costs.plan.cores": "Cluster",
    "costs.plan.minutes": "Durée",
    "costs.plan.eur": "Prix",
    "costs.core_hours": "{hours:f1} h",
    "costs.core_seconds": "{seconds:n} s",
    "costs.core_minutes": "{minutes:f1} min",
    "costs.cores": "{cores:n} cœurs",
    "costs.cores.spot": "{cores:n} cœurs, {spot:n} Spot",
    "costs.minutes": "{minutes:f0} min",
    "costs.eur": "{eur:f2} €",
    "costs.plan.region": (
        "Région {region:s}, hors taxes. La première ligne est la source de ce diaporama, les "
        "autres en supposent davantage, de même taille."
    ),
    "costs.plan.assumed": (
        "Calculé d'après des débits mesurés (MobileNetV2 1.0, 224 px) et une table de prix. "
        "Supposés : 6 min de démarrage, Spot à moitié prix, vitesse d'un vCPU, supplément d'EMR, "
        "taux de change."
    ),
    "costs.published": (
        "Pour comparaison, chiffres publiés par d'autres projets : 67 692 images en 83 min, une "
        "facture de 17,39 USD."
    ),
    "costs.bill": "coût des clusters de ces exécutions, de leur début à leur fin, hors taxes",
    "costs.bill.missing": "Facturé : non mesuré",
    "costs.bill.missing.what": (
        "Aucune exécution sur EMR n'est connue pour ces données. FRUITS_SPARK=emr make run "
        "l'inscrit dans les étiquettes de l'exécution."
    ),
    "costs.levers": "Comment le prix reste bas",
    "costs.lever.1": "Le cluster vit le temps d'une exécution",
    "costs.lever.2": "Seul ce qui est nouveau est calculé",
    "costs.lever.3": "Spot pour tout sauf deux machines, Graviton",
    "costs.lever.4": "Un plafond : au-dessus, rien ne démarre",
    "costs.lever.5": "Sous 100 000 photos environ, un portable suffit",
    "costs.notes": (
        "Ces montants sont un plan pour la région {region:s}, pas une facture : débits mesurés "
        "multipliés par une table de prix, avec les hypothèses affichées. Le plan est annoncé "
        "avant tout démarrage et peut être plafonné (FRUITS_EMR_MAX_COST_EUR) ; après une "
        "exécution sur EMR, le coût réel des machines est inscrit dans Dagster. Pour peu de "
        "photos, presque tout le prix est le démarrage du cluster."
    ),
    # Assets
    "assets.title": "La chaîne : six assets, chacun une question et sa réponse",
    "assets.source": "Source",
    "assets.source.what": "photos dans des dossiers",
    "assets.weights": "Poids",
    "assets.weights.what": "fichier Keras",
    "assets.shown": "Livrables",
    "assets.shown.what": "notebook, diaporama, galerie",
    "assets.files": "fichiers rejetés : {count:n}",
    "assets.photos": "{count:n} photos",
    "assets.model": "alpha {alpha:f2}, {size:n} px",
    "assets.features": "{count:n} par photo",
    "assets.components": "{count:n} composantes",
    "assets.projected": "{count:n} par photo",
    "assets.made": "{size:f1} Mo en {seconds:f1} s",
    "assets.made.small": "{size:f1} ko en {seconds:f1} s",
    "assets.address": "Une question, une réponse",
    "assets.address.what": (
        "Chaque version porte l'empreinte du code, des paramètres et des entrées : ce qui est fait "
        "est repris, ce qui est interrompu continue, rien n'est calculé deux fois."
    ),
    "assets.checks": "Douze contrôles",
    "assets.checks.what": (
        "Aucun fichier perdu, pas d'image dans deux jeux, étiquettes et classes saines, égalité à "
        "Keras, vecteurs complets, composantes orthonormées, variance, reconnaissance."
    ),
    "assets.notes": (
        "Lire le graphe de gauche à droite. raw_images et rejected_images : chaque fichier de la "
        "source est dans l'une des deux tables. model_weights : le réseau converti une fois. "
        "features : ce que le réseau voit. pca_model puis pca_features : la dimension réduite. "
        "Les tailles et durées affichées sont celles que le journal Delta donne des versions "
        "courantes ; un incrément ne compte que ce qui était nouveau."
    ),
    # Ingest
    "ingest.title": "Ingestion : aucun fichier perdu, {rejected:n} sur {files:n} à l'écart",
    "ingest.title.none": "Ingestion : {files:n} fichiers, aucun rejeté, aucun perdu",
    "ingest.found": "fichiers trouvés",
    "ingest.examined": "Examen",
    "ingest.examined.what": "contenu, limites, décodage dans un processus fils",
    "ingest.accepted": "raw_images",
    "ingest.rejected": "rejected_images",
    "ingest.rules": "Ce qui est tenu",
    "ingest.rule.1": "Chaque fichier finit dans une table et une seule : jamais de vecteur nul.",
    "ingest.rule.2": "Le format est reconnu au contenu : JPEG, PNG, HEIC, AVIF, WebP, TIFF…",
    "ingest.rule.3": "Une image qui tue son décodeur ne coûte que ce processus.",
    "ingest.none": "Aucun des {files:n} fichiers n'est rejeté",
    "ingest.none.what": "S'il y en avait, chacun aurait une de ces raisons, et un conseil :",
    "ingest.reasons": "Fichiers rejetés, par raison",
    "ingest.reasons.alt": "Barres : nombre de fichiers rejetés par raison.",
    "ingest.examples": "Par exemple",
    "ingest.notes": (
        "Le notebook du stagiaire s'arrête à la première image illisible, et le lecteur "
        "binaryFile de Spark passe les fichiers vides sous silence. Ici, tout fichier est compté "
        ": un contrôle compare la liste de la source aux deux tables. Au-delà d'une part de "
        "rejets (5 % par défaut), l'exécution échoue et dit pourquoi."
    ),
    "reason.empty": "fichier vide",
    "reason.not_an_image": "pas une image",
    "reason.unsupported_format": "format non géré",
    "reason.truncated": "tronquée",
    "reason.corrupt": "corrompue",
    "reason.too_large": "trop grande",
    "reason.unreadable": "illisible (décodeur)",
    # Broadcast
    "broadcast.title": "Diffusion des poids : un modèle par processus, pas par tâche",
    "broadcast.driver": "Driver",
    "broadcast.intern": "Notebook du stagiaire",
    "broadcast.intern.driver": "broadcast(model.get_weights())",
    "broadcast.task": "Tâche {number:n}",
    "broadcast.task.last": "… 20",
    "broadcast.task.builds": "construit le modèle",
    "broadcast.intern.what": (
        "Chaque tâche reconstruit tout le réseau, puis y met les poids reçus : 20 partitions, 20 "
        "constructions, TensorFlow sur chaque machine."
    ),
    "broadcast.project": "Ce projet",
    "broadcast.project.driver": "broadcast(model.tflite) : {megabytes:f1} Mo",
    "broadcast.worker": "Processus {number:n}",
    "broadcast.worker.model": "1 modèle, gardé",
    "broadcast.worker.1": "tâches 1, 3, 5…",
    "broadcast.worker.2": "tâches 2, 4, 6…",
    "broadcast.project.what": (
        "Graphe et poids sont un seul fichier : le worker l'ouvre et calcule. Rien à construire, "
        "rien à télécharger, pas de TensorFlow sur le cluster."
    ),
    "broadcast.megabytes": "{megabytes:f1} Mo",
    "broadcast.file": "diffusés une fois à chaque machine : graphe et poids, en float32",
    "broadcast.error": "{error:s}",
    "broadcast.keras": "écart relatif aux caractéristiques de Keras (norme L2)",
    "broadcast.features": "caractéristiques par photo, sans la couche de classement",
    "broadcast.notes": (
        "La diffusion du stagiaire est réelle mais sert peu : chaque tâche construit le modèle "
        "entier avant d'y poser les poids. Ici le modèle TensorFlow est converti une fois en "
        "LiteRT sur l'hôte Dagster, comparé à Keras, puis diffusé par sparkContext.broadcast ; "
        "chaque processus Python de Spark l'ouvre une fois et le garde d'une tâche à l'autre."
    ),
    # PCA
    "pca.title": (
        "ACP : {components:n} composantes sur {features:n} gardent {kept:p1} de la variance"
    ),
    "pca.curve": "Variance cumulée",
    "pca.cumulative": "variance cumulée",
    "pca.target": "cible : {share:p0}",
    "pca.chosen": "k = {components:n}",
    "pca.components": "nombre de composantes",
    "pca.curve.alt": (
        "Courbe de la variance cumulée : {components:n} composantes en gardent {kept:p1}."
    ),
    "pca.cloud": "Les deux premières composantes, {shown:n} photos",
    "pca.cloud.some": "Les deux premières composantes : {named:n} classes éloignées",
    "pca.others": "autres",
    "pca.axis": "composante {number:n} ({share:p1})",
    "pca.cloud.alt": "Nuage des photos dans le plan des deux premières composantes, par classe.",
    "pca.all": "toutes",
    "pca.how": (
        "Ajustée en une passe distribuée ({seconds:f1} s) sur {images:n} photos ({split:s}) : une "
        "matrice de Gram par partition, additionnées, puis les vecteurs propres. Données centrées "
        "; égale à scikit-learn à 1e-5 près."
    ),
    "pca.notes": (
        "La cible est une part de la variance ; le nombre de composantes en découle. L'ACP est "
        "ajustée sur le jeu d'entraînement s'il existe, puis appliquée à tout : rien du jeu de "
        "test ne s'y glisse. Celle de Spark ML ne centre pas à la projection et ne connaît pas de "
        "cible de variance. Sur le nuage, des classes se séparent déjà sur deux axes ; le reste "
        "se sépare sur les autres composantes."
    ),
    # Recognition
    "recognition.title": "{share:p1} des {test:n} photos de test sont reconnues",
    "recognition.title.missing": "Reconnaissance : à mesurer",
    "recognition.missing": "Non mesuré",
    "recognition.missing.what": (
        "Il faut des photos étiquetées dans des dossiers Training et Test, et le contrôle « "
        "recognition » sur ces données : make run l'exécute."
    ),
    "recognition.components": "{count:n} composantes",
    "recognition.features": "{count:n} caractéristiques",
    "recognition.accuracy": "exactitude",
    "recognition.share": "{share:p1}",
    "recognition.alt": (
        "Barres : exactitude {components:p1} sur les composantes, {features:p1} sur toutes les "
        "caractéristiques."
    ),
    "recognition.how": "Comment c'est mesuré",
    "recognition.how.what": (
        "Plus proche voisin : chaque photo de test reçoit l'étiquette de la photo d'entraînement "
        "la plus proche. Aucun classifieur n'est entraîné : la différence des deux barres est le "
        "prix de la réduction."
    ),
    "recognition.care": "À lire avec prudence",
    "recognition.care.drawn": (
        "Photos dessinées par un programme, poids entraînés sur de tels dessins : ce score montre "
        "que la chaîne marche, pas qu'elle reconnaît de vrais fruits."
    ),
    "recognition.care.fruits_360": (
        "Fruits-360 filme un même fruit qui tourne : Training et Test montrent les mêmes "
        "individus. Un fruit jamais vu serait reconnu moins souvent."
    ),
    "recognition.care.own": (
        "Si un même fruit est photographié pour Training et pour Test, le score est trop bon : "
        "séparer les jeux par fruit, par verger ou par jour."
    ),
    "recognition.care.none": (
        "Un score n'aurait de sens que si les jeux sont séparés par fruit, verger ou jour : sinon "
        "un même fruit serait des deux côtés."
    ),
    "recognition.notes": (
        "La question est ce que coûte la réduction : on compare le plus proche voisin sur les "
        "composantes et sur toutes les caractéristiques, avec les mêmes photos. Ce n'est pas le "
        "modèle de l'application, mais une borne simple sans entraînement. Dire tout de suite la "
        "limite du jeu de données."
    ),
    # Demonstration
    "demonstration.title": "Démonstration : de la photo à ses composantes",
    "demonstration.1": "Le graphe des assets",
    "demonstration.1.command": "make ui",
    "demonstration.1.seen": (
        "Lignage, versions, contrôles ; vignettes et courbe de l'ACP dans les métadonnées."
    ),
    "demonstration.2": "La même exécution : rien n'est recalculé",
    "demonstration.2.command": "make run",
    "demonstration.2.seen": "« reused version » à chaque étape, en quelques secondes.",
    "demonstration.3": "Une photo de plus : elle seule est traitée",
    "demonstration.3.command": "cp kiwi.jpg photos/Kiwi/",
    "demonstration.3.seen": (
        "« 1 of … files are new », puis make run : l'ACP reste, tant que les photos bougent peu."
    ),
    "demonstration.4": "Un fichier qui n'est pas une photo",
    "demonstration.4.command": "touch photos/Kiwi/vide.jpg",
    "demonstration.4.seen": (
        "Une ligne dans rejected_images : « fichier vide », et l'exécution continue."
    ),
    "demonstration.notes": (
        "30 secondes par étape ; la source est un dossier, photos/ (FRUITS_SOURCE). 1 : make ui, "
        "montrer le graphe, ouvrir raw_images (vignettes) et pca_model (courbe). 2 : Materialize "
        "all : les versions sont reprises. 3 : ajouter une photo, relancer : une seule inférence. "
        "4 : ajouter un fichier vide, montrer rejected_images. En secours, si le réseau ou "
        "l'écran manque : make demo sur l'échantillon embarqué, et les captures du README."
    ),
    # Throughput
    "throughput.title": "Débit : {times:f1} fois le notebook du stagiaire",
    "throughput.title.missing": "Débit : à comparer au notebook du stagiaire",
    "throughput.missing": "Non mesuré : lancer « make bench »",
    "throughput.missing.what": (
        "La comparaison au notebook du stagiaire, sur la même machine et les mêmes photos, est "
        "lue dans artifacts/benchmark.json, que « make bench » écrit. Relancer ensuite ce "
        "diaporama."
    ),
    "throughput.chart": "Images par seconde, {photos:n} photos, même machine",
    "throughput.chart.quick": (
        "Images par seconde : {photos:n} photos seulement, les coûts fixes dominent"
    ),
    "throughput.rate": "images par seconde",
    "throughput.label": "{rate:n}/s",
    "throughput.bar": "{name:s} ({megabytes:n} Mo par worker)",
    "throughput.intern": "notebook du stagiaire",
    "throughput.predict_batch": "predict_batch_udf de Spark",
    "throughput.project": "ce projet",
    "throughput.ceiling": "plafond : processus nus",
    "throughput.alt": "Barres : images par seconde ; ce projet fait {times:f1} fois le notebook.",
    "throughput.run": "Dans ce lac",
    "throughput.run.what": (
        "{count:n} inférences à {rate:n} images/s, mesurées pendant l'exécution qui a fait ces "
        "caractéristiques."
    ),
    "throughput.why": "Pourquoi",
    "throughput.why.what": (
        "LiteRT, une image à la fois, un modèle par processus ; aucun pixel dans la JVM ni dans "
        "un shuffle."
    ),
    "throughput.published": "Ailleurs",
    "throughput.published.what": (
        "Publié par d'autres projets : 67 692 images en 83 min ; au mieux 103 993 en 13 min "
        "environ (133 images/s). Autres machines : non comparable."
    ),
    "throughput.notes": (
        "Les concurrents tournent tour à tour sur la même machine, dans des processus séparés ; "
        "la médiane compte. Le plafond est ce que feraient des processus nus qui ne font que "
        "décoder et inférer. Les chiffres publiés ailleurs viennent d'autres machines et sont "
        "cités comme tels. Avec peu de photos, les coûts fixes dominent et le rapport change : "
        "make bench-full mesure aux tailles qui comptent."
    ),
    # Reliability
    "reliability.title": "Ce qui échoue, et comment : rien de perdu, rien de faussé",
    "reliability.fault": "Panne",
    "reliability.kept": "Ce qui se passe",
    "reliability.killed": "Processus tué, coupure",
    "reliability.killed.what": (
        "Un fichier est là en entier ou pas du tout ; la même commande continue. Perdu : 30 s au "
        "plus."
    ),
    "reliability.worker": "Worker ou machine Spot perdu",
    "reliability.worker.what": "Spark refait ses tâches ailleurs, jusqu'à quatre fois.",
    "reliability.image": "Image qui tue son décodeur",
    "reliability.image.what": "Elle est rejetée comme illisible ; l'exécution continue.",
    "reliability.store": "S3 lent, 503, à moitié",
    "reliability.store.what": (
        "Nouvelles tentatives espacées ; longueurs et sommes de contrôle comparées."
    ),
    "reliability.disk": "Disque plein, droit retiré",
    "reliability.disk.what": (
        "L'exécution échoue avec une phrase qui dit quoi faire ; rien n'est publié."
    ),
    "reliability.twins": "Deux exécutions à la fois",
    "reliability.twins.what": "L'une publie, l'autre le dit ; son travail n'est pas perdu.",
    "reliability.damage": "Fichier du lac abîmé",
    "reliability.damage.what": (
        "Vu à l'ouverture ou à la lecture ; make repair ne refait que ce qui manque."
    ),
    "reliability.tried": (
        "« make faults » injecte ces pannes dans de vraies exécutions, relance la même commande "
        "et compare les tables, ligne à ligne, à celles d'une exécution tranquille."
    ),
    "reliability.notes": (
        "Un lecteur voit l'ancienne version ou la nouvelle, en entier. Deux trous connus : un "
        "fichier remplacé puis remis avec son ancienne date reste rejeté jusqu'au prochain "
        "changement de la source ; les commits du journal Delta n'ont pas de somme de contrôle."
    ),
    # Limits
    "limits.title": "Limites, suites et sources",
    "limits.limits": "Limites",
    "limits.data.drawn": "Photos dessinées, pas réelles : les scores ne valent que pour la chaîne.",
    "limits.data.fruits_360": (
        "Fuite : Training et Test montrent les mêmes fruits, filmés en rotation ; score trop bon."
    ),
    "limits.data.own": (
        "Non vérifié : un même fruit peut être dans Training et dans Test, sous un autre angle."
    ),
    "limits.white": (
        "Fond blanc sur {share:p0} des vignettes : un marché ou un verger sera plus dur."
    ),
    "limits.scenes": (
        "Arrière-plans variés : le réseau peut apprendre le décor plutôt que le fruit."
    ),
    "limits.duplicates": (
        "Contenus identiques dans deux jeux : {count:n} ; les quasi-doublons ne sont pas cherchés."
    ),
    "limits.no_splits": "Pas de jeu de test séparé : aucune exactitude ne peut être affirmée.",
    "limits.scale": (
        "{images:n} photos ici : le passage à l'échelle est prévu par calcul, pas constaté."
    ),
    "limits.cloud": (
        "EMR : éprouvé sur un vrai YARN et un émulateur ; prix, Spot et délais restent à voir "
        "sur AWS."
    ),
    "limits.cloud.ran": "EMR : une exécution n'est pas un mois ; prix Spot et capacité varient.",
    "limits.next": "Suites",
    "limits.next.1": "Première exécution sur AWS, 100 photos, coût plafonné",
    "limits.next.2": "Vraies photos de producteurs, jeux séparés par fruit",
    "limits.next.3": "Un classifieur sur les composantes, suivi par classe",
    "limits.next.4": "Essai sur un million de photos, puis prix constaté",
    "limits.next.5": "Composantes d'une photo à la demande pour l'application",
    "limits.sources": "Sources et licences",
    "limits.sources.drawn": (
        "Photos : dessinées par le projet, libres de droits ; poids : entraînés par le projet sur "
        "de tels dessins."
    ),
    "limits.sources.fruits_360": (
        "Photos : nommées comme celles de Fruits-360 (Mureșan et Oltean, 2018), CC BY-SA 4.0."
    ),
    "limits.sources.own": (
        "Photos : de la source configurée ; leurs droits sont à vérifier par qui les montre."
    ),
    "limits.sources.model": (
        "Réseau : MobileNetV2 (Sandler et al., 2018), par Keras Applications, Apache 2.0. "
        "Couleurs : Okabe et Ito."
    ),
    "limits.sources.libraries": "Logiciels libres : {versions:s}.",
    "limits.notes": (
        "Dire les limites avant qu'on les demande. Le score est trop beau tant que les mêmes "
        "fruits sont dans les deux jeux et que le fond est blanc. Rien n'a été facturé par AWS "
        "tant qu'une exécution n'y a pas eu lieu : la liste de ce qui reste à voir est dans "
        "docs/aws.md. Ensuite : vraies photos, classifieur, passage à l'échelle constaté."
    ),
}
