"""Pure tensor functions: neighbours, Jaccard affinity, DBSCAN, transport, prototypes. No plug-in is known here."""
