package local

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// An engine is ONNX Runtime, loaded into the process. Its calls go through the
// C API's table of functions, so that no C compiler is needed to build us.
//
// ONNX Runtime keeps one environment a process and counts its users; the
// library stays loaded until the process ends, as it cannot be unloaded safely.
type engine struct {
	env unsafe.Pointer
	mem unsafe.Pointer // description of ordinary memory

	errorMessage  func(status unsafe.Pointer) string
	releaseStatus func(status unsafe.Pointer)

	createEnv        func(level int32, logID string, out *unsafe.Pointer) unsafe.Pointer
	disableTelemetry func(env unsafe.Pointer) unsafe.Pointer
	releaseEnv       func(env unsafe.Pointer)
	createCPUMem     func(allocator, memType int32, out *unsafe.Pointer) unsafe.Pointer
	releaseMem       func(mem unsafe.Pointer)

	createOptions    func(out *unsafe.Pointer) unsafe.Pointer
	setOptimization  func(options unsafe.Pointer, level int32) unsafe.Pointer
	setIntraThreads  func(options unsafe.Pointer, n int32) unsafe.Pointer
	setInterThreads  func(options unsafe.Pointer, n int32) unsafe.Pointer
	disablePattern   func(options unsafe.Pointer) unsafe.Pointer
	addConfig        func(options unsafe.Pointer, key, value string) unsafe.Pointer
	releaseOptions   func(options unsafe.Pointer)
	createSession    func(env, path, options unsafe.Pointer, out *unsafe.Pointer) unsafe.Pointer
	releaseSession   func(session unsafe.Pointer)
	inputCount       func(session unsafe.Pointer, out *uintptr) unsafe.Pointer
	outputCount      func(session unsafe.Pointer, out *uintptr) unsafe.Pointer
	inputName        func(session unsafe.Pointer, i uintptr, alloc unsafe.Pointer, out *unsafe.Pointer) unsafe.Pointer
	outputName       func(session unsafe.Pointer, i uintptr, alloc unsafe.Pointer, out *unsafe.Pointer) unsafe.Pointer
	defaultAllocator func(out *unsafe.Pointer) unsafe.Pointer
	allocatorFree    func(alloc, p unsafe.Pointer) unsafe.Pointer

	createRunOptions  func(out *unsafe.Pointer) unsafe.Pointer
	setTerminate      func(runOptions unsafe.Pointer) unsafe.Pointer
	releaseRunOptions func(runOptions unsafe.Pointer)
	run               func(session, runOptions unsafe.Pointer, inNames, inValues unsafe.Pointer, nIn uintptr, outNames unsafe.Pointer, nOut uintptr, outValues unsafe.Pointer) unsafe.Pointer

	createTensor func(mem, data unsafe.Pointer, size uintptr, shape unsafe.Pointer, rank uintptr, elem int32, out *unsafe.Pointer) unsafe.Pointer
	tensorData   func(value unsafe.Pointer, out *unsafe.Pointer) unsafe.Pointer
	tensorInfo   func(value unsafe.Pointer, out *unsafe.Pointer) unsafe.Pointer
	elementType  func(info unsafe.Pointer, out *int32) unsafe.Pointer
	dimCount     func(info unsafe.Pointer, out *uintptr) unsafe.Pointer
	dims         func(info unsafe.Pointer, out *int64, n uintptr) unsafe.Pointer
	releaseInfo  func(info unsafe.Pointer)
	releaseValue func(value unsafe.Pointer)
}

// ortAPIVersion is the version of the C API that we ask for. Functions are
// only ever appended to its table, so every later library has this version too.
const ortAPIVersion = 17

// The parts of ONNX Runtime's enums that we use.
const (
	ortLogError    = 3
	ortOptimizeAll = 99
	ortArena       = 1 // OrtArenaAllocator
	ortMemDefault  = 0
	ortFloat       = 1
	ortInt64       = 7
)

// loadEngine loads the library at path.
func loadEngine(path string) (*engine, error) {
	symbol, err := openLibrary(path, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load onnx runtime: %w", err)
	}
	var base func() *[2]uintptr // OrtApiBase{GetApi, GetVersionString}
	purego.RegisterFunc(&base, symbol)
	entry := base()
	var getAPI func(version uint32) *[256]uintptr
	purego.RegisterFunc(&getAPI, entry[0])
	table := getAPI(ortAPIVersion)
	if table == nil {
		return nil, fmt.Errorf("load onnx runtime: %s does not have version %d of the C API", path, ortAPIVersion)
	}

	e := new(engine)
	// The numbers are positions in struct OrtApi of onnxruntime_c_api.h.
	for fn, i := range map[any]int{
		&e.errorMessage: 2, &e.createEnv: 3, &e.disableTelemetry: 6, &e.createSession: 7, &e.run: 9,
		&e.createOptions: 10, &e.disablePattern: 17, &e.setOptimization: 23,
		&e.setIntraThreads: 24, &e.setInterThreads: 25, &e.inputCount: 30, &e.outputCount: 31,
		&e.inputName: 36, &e.outputName: 37, &e.createRunOptions: 39, &e.setTerminate: 46,
		&e.createTensor: 49, &e.tensorData: 51, &e.elementType: 60, &e.dimCount: 61, &e.dims: 62,
		&e.tensorInfo: 65, &e.createCPUMem: 69, &e.allocatorFree: 76, &e.defaultAllocator: 78,
		&e.releaseEnv: 92, &e.releaseStatus: 93, &e.releaseMem: 94, &e.releaseSession: 95,
		&e.releaseValue: 96, &e.releaseRunOptions: 97, &e.releaseInfo: 99, &e.releaseOptions: 100,
		&e.addConfig: 130,
	} {
		purego.RegisterFunc(fn, table[i])
	}
	if err := e.check(e.createEnv(ortLogError, "rag-processor", &e.env)); err != nil {
		return nil, fmt.Errorf("load onnx runtime: %w", err)
	}
	err = e.check(e.disableTelemetry(e.env))
	if err == nil {
		err = e.check(e.createCPUMem(ortArena, ortMemDefault, &e.mem))
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("load onnx runtime: %w", err)
	}
	return e, nil
}

// close releases what e holds of the environment. No session may be open.
func (e *engine) close() {
	if e.mem != nil {
		e.releaseMem(e.mem)
	}
	e.releaseEnv(e.env)
}

// check turns a status into an error and releases it.
func (e *engine) check(status unsafe.Pointer) error {
	if status == nil {
		return nil
	}
	msg := e.errorMessage(status)
	e.releaseStatus(status)
	return errors.New("onnx runtime: " + msg)
}

// A session is one model, ready to run. Its run method is safe for concurrent
// use.
type session struct {
	e       *engine
	ptr     unsafe.Pointer
	inputs  []string
	outputs []string
	allOut  [][]byte // outputs, with a final zero byte
	allIn   [][]byte
}

// newSession loads the model at path. Each run uses threads threads.
//
// ONNX Runtime's arena is kept: without it, each thread's malloc holds on to
// the buffers of the largest batch that it ever saw, which took a gigabyte. The
// arena is one for all threads. Memory patterns only help when every batch has
// the same shape.
func (e *engine) newSession(path string, threads int) (*session, error) {
	var opt unsafe.Pointer
	if err := e.check(e.createOptions(&opt)); err != nil {
		return nil, err
	}
	defer e.releaseOptions(opt)
	for _, status := range []unsafe.Pointer{
		e.setOptimization(opt, ortOptimizeAll),
		e.setIntraThreads(opt, int32(threads)),
		e.setInterThreads(opt, 1),
		e.disablePattern(opt),
		e.addConfig(opt, "session.intra_op.allow_spinning", "0"),
	} {
		if err := e.check(status); err != nil {
			return nil, err
		}
	}
	name, err := nativePath(path)
	if err != nil {
		return nil, err
	}
	s := &session{e: e}
	if err := e.check(e.createSession(e.env, unsafe.Pointer(unsafe.SliceData(name)), opt, &s.ptr)); err != nil {
		return nil, err
	}
	if s.inputs, err = s.names(e.inputCount, e.inputName); err == nil {
		s.outputs, err = s.names(e.outputCount, e.outputName)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.allIn, s.allOut = cStrings(s.inputs), cStrings(s.outputs)
	return s, nil
}

func cStrings(names []string) [][]byte {
	out := make([][]byte, len(names))
	for i, n := range names {
		out[i] = append([]byte(n), 0)
	}
	return out
}

// names reads the names of the session's inputs or outputs.
func (s *session) names(
	count func(unsafe.Pointer, *uintptr) unsafe.Pointer,
	name func(unsafe.Pointer, uintptr, unsafe.Pointer, *unsafe.Pointer) unsafe.Pointer,
) ([]string, error) {
	var n uintptr
	var alloc unsafe.Pointer
	if err := s.e.check(count(s.ptr, &n)); err != nil {
		return nil, err
	}
	if err := s.e.check(s.e.defaultAllocator(&alloc)); err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range n {
		var p unsafe.Pointer
		if err := s.e.check(name(s.ptr, i, alloc, &p)); err != nil {
			return nil, err
		}
		names[i] = cString(p)
		if err := s.e.check(s.e.allocatorFree(alloc, p)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// cString copies the string that ends with a zero byte at p.
func cString(p unsafe.Pointer) string {
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}

func (s *session) close() { s.e.releaseSession(s.ptr) }

// run computes the output named output, a tensor of floats, from one tensor of
// integers for each of the session's inputs, all of the given shape, and hands
// it to use. The data belongs to ONNX Runtime and is gone when use returns.
//
// When ctx ends, the computation is asked to stop and run returns ctx's error.
func (s *session) run(ctx context.Context, inputs [][]int64, shape []int64, output int, use func(data []float32, shape []int64) error) error {
	e := s.e
	if len(inputs) != len(s.inputs) {
		return fmt.Errorf("onnx runtime: the model wants %d inputs, not %d", len(s.inputs), len(inputs))
	}
	var opt unsafe.Pointer
	if err := e.check(e.createRunOptions(&opt)); err != nil {
		return err
	}
	defer e.releaseRunOptions(opt)

	// ONNX Runtime keeps pointers to this memory from createTensor until run
	// has returned, so the collector must know that it is in use.
	var pin runtime.Pinner
	defer pin.Unpin()
	names := make([]unsafe.Pointer, len(inputs))
	values := make([]unsafe.Pointer, len(inputs))
	defer func() {
		for _, v := range values {
			if v != nil {
				e.releaseValue(v)
			}
		}
	}()
	for i, in := range inputs {
		pin.Pin(&in[0])
		pin.Pin(&s.allIn[i][0])
		names[i] = unsafe.Pointer(&s.allIn[i][0])
		status := e.createTensor(e.mem, unsafe.Pointer(&in[0]), uintptr(len(in)*8), unsafe.Pointer(&shape[0]), uintptr(len(shape)), ortInt64, &values[i])
		if err := e.check(status); err != nil {
			return err
		}
	}
	pin.Pin(&s.allOut[output][0])
	outName := []unsafe.Pointer{unsafe.Pointer(&s.allOut[output][0])}
	out := []unsafe.Pointer{nil}
	pin.Pin(&names[0])
	pin.Pin(&values[0])
	pin.Pin(&outName[0])
	pin.Pin(&out[0])

	// The stop is asked for by another goroutine, which must have finished
	// before the options are released.
	asked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(asked)
		// An error here could only mean that the run goes on to its end.
		_ = e.check(e.setTerminate(opt))
	})
	err := e.check(e.run(s.ptr, opt, unsafe.Pointer(&names[0]), unsafe.Pointer(&values[0]), uintptr(len(inputs)),
		unsafe.Pointer(&outName[0]), 1, unsafe.Pointer(&out[0])))
	if !stop() {
		<-asked
	}
	if out[0] != nil {
		defer e.releaseValue(out[0])
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}

	data, dims, err := e.floats(out[0])
	if err != nil {
		return err
	}
	return use(data, dims)
}

// floats returns the data and shape of a tensor of floats.
func (e *engine) floats(value unsafe.Pointer) ([]float32, []int64, error) {
	var info unsafe.Pointer
	if err := e.check(e.tensorInfo(value, &info)); err != nil {
		return nil, nil, err
	}
	defer e.releaseInfo(info)
	var elem int32
	if err := e.check(e.elementType(info, &elem)); err != nil {
		return nil, nil, err
	}
	if elem != ortFloat {
		return nil, nil, fmt.Errorf("onnx runtime: the model's output has elements of type %d, not 32-bit floats", elem)
	}
	var rank uintptr
	if err := e.check(e.dimCount(info, &rank)); err != nil {
		return nil, nil, err
	}
	if rank == 0 {
		return nil, nil, errors.New("onnx runtime: the model's output is a single number")
	}
	dims := make([]int64, rank)
	if err := e.check(e.dims(info, &dims[0], rank)); err != nil {
		return nil, nil, err
	}
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	var p unsafe.Pointer
	if err := e.check(e.tensorData(value, &p)); err != nil {
		return nil, nil, err
	}
	return unsafe.Slice((*float32)(p), n), dims, nil
}
