# What `cmake --install` puts where: the command, the runtime archives it links artifacts with and
# their headers, the models, the documentation, and the files by which pkg-config and CMake find it.
include(CMakePackageConfigHelpers)
set(CNX_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR}/cnxc)
set(CNX_PACKAGEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/cnxc)

set_target_properties(cnxc PROPERTIES INSTALL_RPATH "${CNX_LLVM_LIBDIR}")
install(TARGETS cnxc RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS cnxrt cnxrt_cli ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES runtime/cnxrt.h runtime/cnxrt_model.h runtime/cnxrt_weights.h
        DESTINATION ${CNX_INCLUDEDIR})
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cnxc/models
        FILES_MATCHING PATTERN "*.yaml")
# Runtimes for other architectures are compiled from these.
install(DIRECTORY runtime/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cnxc/runtime
        FILES_MATCHING PATTERN "*.c" PATTERN "*.h" PATTERN "*.def")
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# Linker flags of objects made with --emit=obj, which hold no runtime.
string(REPLACE ";" " " CNX_PC_LIBS "${CNX_RUNTIME_LIBS}")
if(CNX_OPENMP)
  set(CNX_PC_OPENMP "-fopenmp")
else()
  set(CNX_PC_OPENMP "")
endif()
file(RELATIVE_PATH CNX_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/cnxc.pc.in ${CMAKE_CURRENT_BINARY_DIR}/cnxc.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cnxc.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

configure_package_config_file(cmake/cnxcConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/cnxcConfig.cmake INSTALL_DESTINATION ${CNX_PACKAGEDIR}
  PATH_VARS CMAKE_INSTALL_BINDIR CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_DATADIR CNX_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/cnxcConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cnxcConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/cnxcConfigVersion.cmake DESTINATION ${CNX_PACKAGEDIR})
