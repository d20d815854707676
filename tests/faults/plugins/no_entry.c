/* A library without the entry symbol. */
int answer(void);
int answer(void) { return 42; }
