// Labels by which it is known which secrets of type kubernetes.io/service-account-token are still used.

/** The day of the last use, as 2006-01-02. */
export const lastUsedLabel = "kubernetes.io/legacy-token-last-used";
/** Since this day its token is refused; who still needs it takes the label off. */
export const invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since";
