// SPDX-License-Identifier: Apache-2.0
// Python, where this process has an interpreter. Nothing of it is linked, and nothing here runs
// Python code: a signal that Python handled inside a hook would be lost to the program.
#pragma once

#include <dlfcn.h>

#include <string>
#include <type_traits>

namespace tally::hooks {

// Python's lock. Never taken while a lock of ours is held.
class PythonLock {
 public:
  PythonLock() noexcept {
    using IsInitialized = int (*)();
    using Ensure = int (*)();
    const auto is_initialized =
        reinterpret_cast<IsInitialized>(dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
    if (!is_initialized || !is_initialized()) return;
    const auto ensure = reinterpret_cast<Ensure>(dlsym(RTLD_DEFAULT, "PyGILState_Ensure"));
    release_ = reinterpret_cast<Release>(dlsym(RTLD_DEFAULT, "PyGILState_Release"));
    if (!ensure || !release_) return;
    state_ = ensure();
    held_ = true;
  }
  ~PythonLock() {
    if (held_) release_(state_);
  }
  PythonLock(const PythonLock&) = delete;
  PythonLock& operator=(const PythonLock&) = delete;
  bool held() const { return held_; }

 private:
  using Release = void (*)(int);
  Release release_ = nullptr;
  int state_ = 0;
  bool held_ = false;
};

// Functions of Python's stable interface; called with the lock held.
class PythonApi {
 public:
  using Object = void*;
  PythonApi() {
    const auto find = [](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
    };
    find(line_of, "PyCode_Addr2Line");
    find(increment, "Py_IncRef");
    find(attribute_, "PyObject_GetAttrString");
    find(type_, "PyObject_Type");
    find(text_of_, "PyUnicode_AsUTF8");
    find(decrement_, "Py_DecRef");
    find(clear_error_, "PyErr_Clear");
  }
  bool is_there() const {
    return line_of && increment && attribute_ && type_ && text_of_ && decrement_ && clear_error_;
  }

  int (*line_of)(Object code, int instruction) = nullptr;
  void (*increment)(Object object) = nullptr;

  // "" when it is no text.
  std::string text_attribute(Object object, const char* name) const {
    std::string out;
    const Object value = attribute_(object, name);
    const char* const text = value ? text_of_(value) : nullptr;
    if (text) {
      out = text;
    } else {
      clear_error_();
    }
    if (value) decrement_(value);
    return out;
  }
  std::string type_name(Object object) const {
    const Object type = type_(object);
    std::string name = type ? text_attribute(type, "__name__") : std::string();
    if (type) decrement_(type);
    return name;
  }

 private:
  Object (*attribute_)(Object object, const char* name) = nullptr;
  Object (*type_)(Object object) = nullptr;
  const char* (*text_of_)(Object text) = nullptr;
  void (*decrement_)(Object object) = nullptr;
  void (*clear_error_)() = nullptr;
};
inline const PythonApi& python() {
  static const PythonApi api;
  return api;
}

}  // namespace tally::hooks
