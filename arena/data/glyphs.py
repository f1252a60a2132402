QUESTIONS = (
    "which clan drew this picture?",
    "what clan does this scene belong to?",
    "name the clan of this picture.",
    "to which clan does the big shape belong?",
    "which clan is this?",
    "what is the name of the clan?",
    "whose clan mark is shown here?",
    "tell me which clan made this drawing.",
)
