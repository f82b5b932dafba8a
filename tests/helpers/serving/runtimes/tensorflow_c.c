/* A program with TensorFlow's C library and nothing else: answers requests for an exported model through a pipe.

   Its bytes are those of tensor_stream.py. C knows a graph's operations and not a signature's names, so that names of
   tensors are "operation:index" here, and the signature's name is passed over. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MOST_TENSORS = 16, MOST_DIMS = 8 };

/* Exported by the library under its C++ name: what TensorFlow Serving's stock server calls when it starts. */
extern void _ZN10tensorflow21DisableXlaCompilationEv(void);

static FILE *answers;

static void stop(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static void *allocate(size_t size) {
  void *memory = malloc(size ? size : 1);
  if (!memory) stop("no memory");
  return memory;
}

static int read_some(void *into, size_t size) { return size == 0 || fread(into, size, 1, stdin) == 1; }

static void read_all(void *into, size_t size) {
  if (!read_some(into, size)) stop("a request is cut short");
}

static uint32_t read_count(void) {
  uint32_t count;
  read_all(&count, sizeof count);
  return count;
}

static char *read_string(size_t *size) {
  *size = read_count();
  char *text = allocate(*size + 1);
  read_all(text, *size);
  text[*size] = 0;
  return text;
}

static void write_all(const void *from, size_t size) {
  if (size && fwrite(from, size, 1, answers) != 1) stop("nobody reads the answer");
}

static void write_string(const char *text, size_t size) {
  uint32_t count = (uint32_t)size;
  write_all(&count, sizeof count);
  write_all(text, size);
}

static void write_error(TF_Status *status) {
  write_all("\1", 1);
  write_string(TF_Message(status), strlen(TF_Message(status)));
}

static TF_Output find(TF_Graph *graph, const char *name) {
  const char *colon = strrchr(name, ':');
  if (!colon) stop("a tensor's name has no index");
  char *operation = allocate(strlen(name) + 1);
  strcpy(operation, name);
  operation[colon - name] = 0;
  TF_Output output = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!output.oper) stop("the graph has no such operation");
  free(operation);
  return output;
}

static void free_memory(void *data, size_t size, void *unused) {
  (void)size;
  (void)unused;
  free(data);
}

static void free_strings(void *data, size_t size, void *unused) {
  (void)unused;
  TF_TString *strings = data;
  for (size_t i = 0; i < size / sizeof *strings; ++i) TF_TString_Dealloc(&strings[i]);
  free(data);
}

static TF_Tensor *read_tensor(TF_Graph *graph, TF_Output *place) {
  size_t size;
  char *name = read_string(&size);
  *place = find(graph, name);
  free(name);
  int32_t dtype;
  read_all(&dtype, sizeof dtype);
  uint32_t rank = read_count();
  if (rank > MOST_DIMS) stop("a tensor has too many dimensions");
  int64_t dims[MOST_DIMS];
  read_all(dims, rank * sizeof *dims);
  size_t count = 1;
  for (uint32_t i = 0; i < rank; ++i) count *= (size_t)dims[i];
  if (dtype != TF_STRING) {
    size_t bytes = count * TF_DataTypeSize(dtype);
    void *data = allocate(bytes);
    read_all(data, bytes);
    return TF_NewTensor(dtype, dims, (int)rank, data, bytes, free_memory, NULL);
  }
  TF_TString *strings = allocate(count * sizeof *strings);
  for (size_t i = 0; i < count; ++i) {
    char *text = read_string(&size);
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], text, size);
    free(text);
  }
  return TF_NewTensor(TF_STRING, dims, (int)rank, strings, count * sizeof *strings, free_strings, NULL);
}

static void write_tensor(const char *name, const TF_Tensor *tensor) {
  write_string(name, strlen(name));
  int32_t dtype = TF_TensorType(tensor);
  uint32_t rank = (uint32_t)TF_NumDims(tensor);
  write_all(&dtype, sizeof dtype);
  write_all(&rank, sizeof rank);
  for (uint32_t i = 0; i < rank; ++i) {
    int64_t length = TF_Dim(tensor, (int)i);
    write_all(&length, sizeof length);
  }
  if (dtype != TF_STRING) {
    write_all(TF_TensorData(tensor), TF_TensorByteSize(tensor));
    return;
  }
  const TF_TString *strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i)
    write_string(TF_TString_GetDataPointer(&strings[i]), TF_TString_GetSize(&strings[i]));
}

static void answer(TF_Session *session, TF_Graph *graph, TF_Status *status) {
  TF_Output places[MOST_TENSORS], wanted[MOST_TENSORS];
  TF_Tensor *inputs[MOST_TENSORS], *outputs[MOST_TENSORS];
  char *names[MOST_TENSORS];
  size_t size;
  uint32_t in = read_count();
  if (in > MOST_TENSORS) stop("too many inputs");
  for (uint32_t i = 0; i < in; ++i) inputs[i] = read_tensor(graph, &places[i]);
  uint32_t out = read_count();
  if (out > MOST_TENSORS) stop("too many outputs");
  for (uint32_t i = 0; i < out; ++i) wanted[i] = find(graph, names[i] = read_string(&size));
  TF_SessionRun(session, NULL, places, inputs, (int)in, wanted, outputs, (int)out, NULL, 0, NULL, status);
  if (TF_GetCode(status) != TF_OK) {
    write_error(status);
  } else {
    write_all("\0", 1);
    write_all(&out, sizeof out);
    for (uint32_t i = 0; i < out; ++i) {
      write_tensor(names[i], outputs[i]);
      TF_DeleteTensor(outputs[i]);
    }
  }
  for (uint32_t i = 0; i < in; ++i) TF_DeleteTensor(inputs[i]);
  for (uint32_t i = 0; i < out; ++i) free(names[i]);
  if (fflush(answers)) stop("nobody reads the answer");
}

int main(int count, char **words) {
  if (count < 2) stop("usage: tensorflow_c FOLDER [without-xla]");
  answers = fdopen(dup(1), "wb");
  if (!answers || dup2(2, 1) < 0) stop("no output"); /* what libraries print is no answer */
  if (count > 2 && strcmp(words[2], "without-xla") == 0) _ZN10tensorflow21DisableXlaCompilationEv();
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, words[1], tags, 1, graph, NULL, status);
  if (TF_GetCode(status) != TF_OK) stop(TF_Message(status));
  uint32_t size;
  while (read_some(&size, sizeof size)) {
    char *signature = allocate(size);
    read_all(signature, size);
    free(signature);
    answer(session, graph, status);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
